package cost

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
)

//go:embed prices.json
var embedded []byte

// Vault is the class of vaults of Amazon Glacier. All other classes have S3's names: STANDARD,
// GLACIER_IR, GLACIER, DEEP_ARCHIVE.
const Vault = "glacier"

// ErrUnknown says that the table has no such price. It is never taken for zero.
var ErrUnknown = errors.New("unknown price")

const gib = 1 << 30

// Table is what things cost, as of a date. It does not change.
type Table struct {
	Date   time.Time
	Source string

	classes map[string]class
	regions map[string]region
}

// class is what is the same in all regions.
type class struct {
	Name             string
	MinDays          int   // minimum storage duration
	MinBytes         int64 // an object is billed as if it had that many at least
	Overhead         int64 // bytes added to each object, at the class's rate
	StandardOverhead int64 // and at that of S3 Standard
	Copies           bool  // what is retrieved is a copy in S3 Standard, for as long as asked
	Waits            map[coldstore.Tier]wait
}

type wait struct{ From, To duration }

type region struct {
	Egress []band
	Prices map[string]prices
}

// band is the price of a part of a month's egress.
type band struct {
	UpTo  int64 // GB in the month; 0: without end
	PerGB price
}

type prices struct {
	Storage  price // per GB and month
	Put      price // per 1,000 requests that upload
	Retrieve map[coldstore.Tier]retrieve
}

type retrieve struct {
	PerGB   price
	Per1000 price
	Note    string
}

// price is an amount in JSON: a text, so that it stands there as on AWS's pages.
type price Money

func (p *price) UnmarshalText(text []byte) error {
	m, err := ParseMoney(string(text))
	*p = price(m)
	return err
}

type duration time.Duration

func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err == nil && v < 0 {
		err = fmt.Errorf("negative duration %q", text)
	}
	*d = duration(v)
	return err
}

// Prices is the table that comes with Firn.
func Prices() (*Table, error) { return Parse(bytes.NewReader(embedded)) }

// Parse reads a table, in the form of the one that comes with Firn (docs/reference/prices.md). Unknown keys are an error.
func Parse(r io.Reader) (*Table, error) {
	var f struct {
		Date, Currency, Source string
		Classes                map[string]class
		Regions                map[string]region
	}
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("price table: %w", err)
	}
	date, err := time.Parse(time.DateOnly, f.Date)
	if err != nil {
		return nil, fmt.Errorf("price table: date %q is not of the form 2026-07-28", f.Date)
	}
	if f.Currency != "USD" {
		return nil, fmt.Errorf("price table: currency %q is not USD", f.Currency)
	}
	t := &Table{Date: date, Source: f.Source, classes: f.Classes, regions: f.Regions}
	return t, t.check()
}

func (t *Table) check() error {
	for name, c := range t.classes {
		if c.MinDays < 0 || c.MinBytes < 0 || c.Overhead < 0 || c.StandardOverhead < 0 || len(c.Waits) == 0 {
			return fmt.Errorf("price table: class %s has a negative number, or no tiers", name)
		}
		for tier, w := range c.Waits {
			if w.To < w.From {
				return fmt.Errorf("price table: class %s, tier %q: waits end before they begin", name, tier)
			}
		}
	}
	for name, r := range t.regions {
		last := int64(0)
		for i, b := range r.Egress {
			if end := i == len(r.Egress)-1; end != (b.UpTo == 0) || !end && b.UpTo <= last {
				return fmt.Errorf("price table: region %s: egress must be in rising bands, the last one without an end", name)
			}
			last = b.UpTo
		}
		for class, p := range r.Prices {
			c, ok := t.classes[class]
			if !ok {
				return fmt.Errorf("price table: region %s has prices of class %s, which is not described", name, class)
			}
			for tier := range p.Retrieve {
				if _, ok := c.Waits[tier]; !ok {
					return fmt.Errorf("price table: region %s, class %s: tier %q is not described", name, class, tier)
				}
			}
		}
	}
	return nil
}

// Place is where archives lie.
type Place struct {
	Class  string // Vault, DEEP_ARCHIVE, …
	Region string
}

func (p Place) String() string { return p.Class + " in " + p.Region }

// Regions are those that the table has, sorted.
func (t *Table) Regions() []string {
	var all []string
	for name := range t.regions {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func (t *Table) unknown(what string, p Place) error {
	return fmt.Errorf("%w: the table of %s has none of %s for %s", ErrUnknown, t.Date.Format(time.DateOnly), what, p)
}

func (t *Table) find(p Place, what string) (class, prices, error) {
	c, ok := t.classes[p.Class]
	if !ok {
		return c, prices{}, t.unknown(what, p)
	}
	r, ok := t.regions[p.Region].Prices[p.Class]
	if !ok {
		return c, r, t.unknown(what, p)
	}
	return c, r, nil
}
