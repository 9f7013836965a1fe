package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/cost"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/progress"
	"github.com/firn-backup/firn/internal/retrieval"
	"github.com/firn-backup/firn/internal/units"
)

// retrieveFlags are the flags of commands that have a vault make archives readable.
type retrieveFlags struct {
	tier, maxCost, rate string
	days                int
	wait                bool
}

func (f *retrieveFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.tier, "tier", "", "how fast the vault shall be: expedited, standard or bulk")
	fs.StringVar(&f.maxCost, "max-cost", "", "ask the vault for nothing if that may cost more than so many `USD`")
	fs.IntVar(&f.days, "storage-days", 0, "keep what is made readable for so many `DAYS`, where the vault lets one choose")
	fs.StringVar(&f.rate, "retrieve-rate", "", "ask for so many archives a time at most: `N/day`, 10/min …; quota: what the service takes in random order")
	fs.BoolVar(&f.wait, "wait", false, "wait until the vault has made everything readable, instead of exiting with 75")
}

// desk is what retrievals are to go by.
type desk struct {
	tier    coldstore.Tier
	days    int
	pace    cost.Pace
	max     cost.Money // of --max-cost; 0 where it is not given
	approve func(ctx context.Context, b retrieval.Bill) error
	budget  *budget
}

// budget tells what retrievals cost before they are asked for, and refuses what is too dear.
type budget struct {
	c      *command
	tell   func(progress.Event) // nil: the command's own
	url    string
	store  coldstore.Lister
	place  cost.Place
	billed bool
	max    cost.Money // with limit
	limit  bool
	spent  cost.Money
	pace   cost.Pace
}

// check refuses flags that are wrong whatever the set and the vault are.
func (f retrieveFlags) check() error {
	_, err := f.parse()
	return err
}

// parse reads the flags as far as they can be read without a vault.
func (f retrieveFlags) parse() (d desk, err error) {
	if f.days < 0 {
		return d, usage("--storage-days %d: must not be negative", f.days)
	}
	d.days = f.days
	if d.tier, err = parseTier(f.tier); err != nil {
		return d, err
	}
	if f.maxCost != "" {
		if d.max, err = cost.ParseMoney(f.maxCost); err != nil {
			return d, usage("--max-cost: %v", err)
		}
	}
	if f.rate != "" && !f.quota() {
		if d.pace, err = cost.ParsePace(f.rate); err != nil {
			return d, usage("--retrieve-rate: %v", err)
		}
	}
	return d, nil
}

// quota says whether the vault's own limit is the pace.
func (f retrieveFlags) quota() bool { return strings.EqualFold(f.rate, "quota") }

// desk reads the flags for a vault. store may be nil where nothing is going to be asked for.
func (c *command) desk(ctx context.Context, f retrieveFlags, url string, store coldstore.Lister) (desk, error) {
	b := &budget{c: c, url: url, store: store}
	d, err := f.parse()
	if err != nil {
		return d, err
	}
	d.budget, d.approve = b, b.approve
	b.max, b.limit = d.max, f.maxCost != ""
	if f.quota() {
		d.pace = b.quota(ctx)
	}
	if d.pace.Unlimited() && store != nil && store.Traits().OneRetrieval {
		d.pace = steadyPace()
	}
	b.pace = d.pace
	if url != "" {
		b.place, b.billed = app.Place(url, store)
	}
	return d, nil
}

// steadyPace is how fast requests go to a service that takes a thousand a second from an account: others have some too.
func steadyPace() cost.Pace { return cost.Pace{Requests: 300, Per: time.Second} }

// quota is the pace that the vault takes, by how much is in it.
func (b *budget) quota(ctx context.Context) cost.Pace {
	v, ok := b.store.(coldstore.VaultDescriber)
	if !ok {
		return cost.Quota(0)
	}
	about, err := v.DescribeVault(ctx)
	if err != nil {
		return cost.Quota(0) // the least that there can be
	}
	return cost.Quota(about.Bytes)
}

// estimates of a bill in each tier, the cheapest first. unknown says why there are none with money.
func (b *budget) estimates(bill retrieval.Bill) (all []cost.Estimate, unknown error, err error) {
	t, err := cost.Prices()
	if err != nil {
		return nil, nil, err
	}
	r := cost.Retrieval{Requests: bill.Requests, Bytes: bill.Bytes, Egress: bill.Bytes, Days: bill.Days}
	if r.Days == 0 && b.store != nil {
		r.Days = b.store.Traits().KeepDays
	}
	if r.Days > 0 {
		r.Days++ // a copy is kept, and paid for, until the midnight after
	}
	if all, unknown = t.ByTier(b.place, r); unknown == nil {
		return all, nil, nil
	}
	for _, tier := range []coldstore.Tier{coldstore.Bulk, coldstore.Standard, coldstore.Expedited} {
		r.Tier = tier
		e, _ := t.Retrieve(b.place, r) // has the waits in any case
		if e.WaitTo > 0 {
			all = append(all, e)
		}
	}
	return all, unknown, nil
}

func chosen(e cost.Estimate, tier coldstore.Tier) bool {
	return e.Tier == tier || tier == "" && e.Tier == coldstore.Standard
}

// approve is a retrieval.Options.Approve.
func (b *budget) approve(ctx context.Context, bill retrieval.Bill) error {
	all, unknown, err := b.estimates(bill)
	if err != nil {
		return err
	}
	b.say(bill, all, unknown, bill.Tier, "asking for")
	if most := b.pace.Within(retrieval.WaveTime); bill.Requests > most {
		b.notice(fmt.Sprintf("at %s the last of %s goes out %s after the first, which the vault does not keep so long: they are asked for, and read, %s at a time",
			b.pace, plural(bill.Requests, "request"), units.Duration(b.pace.Over(bill.Requests).Round(time.Minute)), count(most)), nil)
	}
	if !b.billed {
		return nil
	}
	if q := cost.Quota(0); b.pace.Unlimited() && b.place.Class == cost.Vault && bill.Requests > q.Requests {
		if q = b.quota(ctx); bill.Requests > q.Requests {
			b.notice(fmt.Sprintf("the service takes %s retrievals a day in random order without slowing down (those in the order of storing do not count); --retrieve-rate quota keeps to that", count(q.Requests)), nil)
		}
	}
	if !b.limit {
		return nil
	}
	if bill.Unknown > 0 {
		return withHint(failure.Errorf(failure.Failed, "how large it is is not known, and so not what it costs, and --max-cost is %s: nothing was asked for", b.max),
			"firn vault sync %s asks the vault what it has", b.url)
	}
	if unknown != nil {
		return withHint(failure.Errorf(failure.Failed, "what it costs is not known, and --max-cost is %s: %w", b.max, unknown),
			"without --max-cost it is asked for whatever the price")
	}
	for _, e := range all {
		if !chosen(e, bill.Tier) {
			continue
		}
		sum := b.spent.Plus(e.Total())
		if sum > b.max {
			err := failure.Errorf(failure.Failed, "%s of %s%s may cost %s (fees %s, transfer to the internet %s), and --max-cost is %s: nothing was asked for",
				plural(bill.Requests, "retrieval"), units.Size(bill.Bytes), inTier(e.Tier), sum, e.Fees(), e.Egress, b.max)
			if all[0].Total() <= b.max && all[0].Tier != e.Tier {
				return withHint(err, "--tier %s: %s, within %s", strings.ToLower(string(all[0].Tier)), all[0].Total(), units.Duration(all[0].WaitTo))
			}
			return err
		}
		b.spent = sum
		return nil
	}
	return failure.Errorf(failure.Failed, "what tier %s costs is not known, and --max-cost is %s", bill.Tier, b.max)
}

// inTier is a tier in a sentence; nothing where there is only one.
func inTier(t coldstore.Tier) string {
	if t == "" {
		return ""
	}
	return ", " + string(t) + ","
}

// say tells of an estimate, for each tier.
func (b *budget) say(bill retrieval.Bill, all []cost.Estimate, unknown error, tier coldstore.Tier, doing string) {
	size := units.Size(bill.Bytes)
	if bill.Unknown > 0 {
		size = "what may be of any size"
	}
	text := fmt.Sprintf("%s %s from the vault: %s", doing, size, plural(bill.Requests, "request"))
	if !b.billed {
		b.notice(text, b.json(bill, all, unknown, tier))
		return
	}
	var lines []string
	for _, e := range all {
		mark := " "
		if chosen(e, tier) {
			mark = "*"
		}
		price := "unknown price"
		if unknown == nil && bill.Unknown == 0 {
			price = fmt.Sprintf("%s, and %s if it leaves the region", e.Fees(), e.Egress)
		}
		line := fmt.Sprintf("%s %-9s  ready in %-8s  %s", mark, e.Tier, waits(e), price)
		if e.Note != "" {
			line += " (" + e.Note + ")"
		}
		lines = append(lines, line)
	}
	if unknown != nil {
		lines = append(lines, "  "+unknown.Error())
	}
	b.notice(text+"\n"+strings.Join(lines, "\n"), b.json(bill, all, unknown, tier))
}

func waits(e cost.Estimate) string {
	if e.WaitTo == 0 {
		return "0 min"
	}
	if e.WaitTo >= time.Hour {
		return fmt.Sprintf("%d-%d h", int(e.WaitFrom.Hours()), int(e.WaitTo.Hours()))
	}
	return fmt.Sprintf("%d-%d min", int(e.WaitFrom.Minutes()), int(e.WaitTo.Minutes()))
}

func (b *budget) notice(text string, data any) {
	tell := b.tell
	if tell == nil {
		tell = b.c.tell
	}
	tell(progress.Event{Kind: progress.Notice, Text: text, Data: data})
}

// jsonCost is the data of a notice of what retrievals cost. docs/reference/json.md.
type jsonCost struct {
	Requests int64      `json:"requests"`
	Bytes    int64      `json:"bytes"`
	Billed   bool       `json:"billed"`
	Known    bool       `json:"known"` // the prices
	Tiers    []jsonTier `json:"tiers,omitempty"`
}

type jsonTier struct {
	Tier     string `json:"tier"`
	Chosen   bool   `json:"chosen"`
	WaitFrom int64  `json:"wait_from_seconds"`
	WaitTo   int64  `json:"wait_to_seconds"`
	Fees     *int64 `json:"fees_microdollars,omitempty"`
	Egress   *int64 `json:"egress_microdollars,omitempty"`
}

func (b *budget) json(bill retrieval.Bill, all []cost.Estimate, unknown error, tier coldstore.Tier) jsonCost {
	j := jsonCost{Requests: bill.Requests, Bytes: bill.Bytes, Billed: b.billed, Known: unknown == nil}
	if !b.billed {
		return j
	}
	for _, e := range all {
		t := jsonTier{Tier: string(e.Tier), Chosen: chosen(e, tier), WaitFrom: int64(e.WaitFrom.Seconds()), WaitTo: int64(e.WaitTo.Seconds())}
		if unknown == nil {
			fees, egress := int64(e.Fees()), int64(e.Egress)
			t.Fees, t.Egress = &fees, &egress
		}
		j.Tiers = append(j.Tiers, t)
	}
	return j
}

// forecast tells what a plan would cost, in a dry run.
func (b *budget) forecast(bill retrieval.Bill) error {
	if bill.Requests == 0 {
		return nil
	}
	all, unknown, err := b.estimates(bill)
	if err == nil {
		b.say(bill, all, unknown, bill.Tier, "would ask for")
	}
	return err
}
