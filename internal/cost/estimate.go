package cost

import (
	"cmp"
	"slices"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
)

// Retrieval is what one wants back. Negative numbers count as 0.
type Retrieval struct {
	Tier     coldstore.Tier // empty: Standard, or the only one that there is
	Requests int64          // archives, or ranges of them
	Bytes    int64          // made readable
	Egress   int64          // bytes that leave the region, to the internet; 0: read within it
	Days     int            // how long copies are kept readable, where they are paid for; 0: 1
}

// Estimate is what a retrieval will cost and how long it takes until everything is readable.
type Estimate struct {
	Place    Place
	Tier     coldstore.Tier
	WaitFrom time.Duration
	WaitTo   time.Duration

	Requests Money // fee for the requests
	Retrieve Money // fee for the bytes retrieved
	Copies   Money // storage of copies, for as long as they are readable
	Egress   Money // transfer to the internet; what is free each month is not taken off

	Note string // what is not certain about it; may be empty
}

// Fees are what the retrieval costs without the transfer.
func (e Estimate) Fees() Money { return e.Requests.Plus(e.Retrieve).Plus(e.Copies) }

// Total is everything, transfer included.
func (e Estimate) Total() Money { return e.Fees().Plus(e.Egress) }

// Retrieve estimates a retrieval. ErrUnknown: the table does not have its prices; the
// Estimate has tier and waits then, where they are known, and no money. The estimate is not
// below what is billed: everything is rounded up, and no free allowance is counted.
func (t *Table) Retrieve(p Place, r Retrieval) (Estimate, error) {
	e := Estimate{Place: p, Tier: r.Tier}
	c, prices, err := t.find(p, "retrievals")
	if e.Tier == "" {
		if _, ok := c.Waits[""]; !ok {
			e.Tier = coldstore.Standard
		}
	}
	if w, ok := c.Waits[e.Tier]; ok {
		e.WaitFrom, e.WaitTo = time.Duration(w.From), time.Duration(w.To)
	}
	if err != nil {
		return e, err
	}
	q, ok := prices.Retrieve[e.Tier]
	if !ok {
		return e, t.unknown("tier "+string(e.Tier), p)
	}
	done := e
	done.Note = q.Note
	done.Requests = charge(r.Requests, Money(q.Per1000), 1000)
	done.Retrieve = charge(r.Bytes, Money(q.PerGB), gib)
	if c.Copies {
		standard, ok := t.regions[p.Region].Prices["STANDARD"]
		if !ok {
			return e, t.unknown("S3 Standard storage", p)
		}
		done.Copies = storageFor(r.Bytes, standard.Storage, max(r.Days, 1))
	}
	if r.Egress > 0 {
		if done.Egress, ok = t.egress(p.Region, r.Egress); !ok {
			return e, t.unknown("transfer to the internet", p)
		}
	}
	return done, nil
}

// ByTier estimates a retrieval in every tier that the table has for p, the cheapest first, of equal ones the fastest.
func (t *Table) ByTier(p Place, r Retrieval) ([]Estimate, error) {
	_, prices, err := t.find(p, "retrievals")
	if err != nil {
		return nil, err
	}
	var all []Estimate
	for tier := range prices.Retrieve {
		r.Tier = tier
		e, err := t.Retrieve(p, r)
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Estimate) int {
		return cmp.Or(cmp.Compare(a.Total(), b.Total()), cmp.Compare(a.WaitTo, b.WaitTo), cmp.Compare(a.Tier, b.Tier))
	})
	return all, nil
}

// egress is the price of bytes to the internet in a month in which nothing else was sent.
func (t *Table) egress(region string, bytes int64) (Money, bool) {
	bands := t.regions[region].Egress
	if len(bands) == 0 {
		return 0, false
	}
	var sum Money
	below := int64(0) // bytes of the bands before
	for _, b := range bands {
		end := bytes
		if b.UpTo > 0 && b.UpTo < bytes/gib+1 {
			end = min(bytes, b.UpTo*gib)
		}
		sum = sum.Plus(charge(end-below, Money(b.PerGB), gib))
		if below = end; below == bytes {
			break
		}
	}
	return sum, true
}

const (
	day   = 24 * time.Hour
	month = 30 // days, as AWS counts where it takes parts of one
)

// storageFor is the storage of bytes for some days.
func storageFor(bytes int64, perMonth price, days int) Money {
	return charge(bytes, Money(times(int64(perMonth), int64(days))), gib*month)
}

// Stored is an archive, for the price of keeping or deleting it.
type Stored struct {
	Bytes   int64
	Created time.Time
}

// Keep is what archives cost in a month: so many of them, with so many bytes in all.
// Where small archives are billed as larger ones, all are taken to be of equal size.
func (t *Table) Keep(p Place, archives, bytes int64) (Money, error) {
	c, prices, err := t.find(p, "storage")
	if err != nil {
		return 0, err
	}
	archives, bytes = max(archives, 0), max(bytes, 0)
	bytes = max(bytes, times(archives, c.MinBytes))
	sum := charge(plus(bytes, times(archives, c.Overhead)), Money(prices.Storage), gib)
	if c.StandardOverhead > 0 {
		standard, ok := t.regions[p.Region].Prices["STANDARD"]
		if !ok {
			return 0, t.unknown("S3 Standard storage", p)
		}
		sum = sum.Plus(charge(times(archives, c.StandardOverhead), Money(standard.Storage), gib))
	}
	return sum, nil
}

// times multiplies counts that are not negative, without overflow.
func times(a, b int64) int64 { return int64(charge(a, Money(b), 1)) }

// Upload is the fee for requests that upload: beginning, every part, completing.
func (t *Table) Upload(p Place, requests int64) (Money, error) {
	_, prices, err := t.find(p, "uploads")
	return charge(requests, Money(prices.Put), 1000), err
}

// EarlyDeletion is the fee for deleting archives at a time before their minimum storage duration is
// over: storage for the days that are left, begun ones whole.
func (t *Table) EarlyDeletion(p Place, archives []Stored, at time.Time) (Money, error) {
	c, prices, err := t.find(p, "early deletion")
	if err != nil {
		return 0, err
	}
	var sum Money
	for _, a := range archives {
		if left := daysLeft(a.Created, at, c.MinDays); left > 0 {
			bytes := plus(max(a.Bytes, c.MinBytes), c.Overhead)
			sum = sum.Plus(storageFor(bytes, prices.Storage, left))
		}
	}
	return sum, nil
}

// MinDays is the minimum storage duration of a class, in days. ok is false for a class that the table does not have.
func (t *Table) MinDays(class string) (days int, ok bool) {
	c, ok := t.classes[class]
	return c.MinDays, ok
}

// daysLeft is how many days, begun ones whole, are left of a minimum duration.
func daysLeft(created, at time.Time, minDays int) int {
	left := created.Add(time.Duration(minDays) * day).Sub(at)
	if left <= 0 {
		return 0
	}
	return min(int((left+day-1)/day), minDays)
}
