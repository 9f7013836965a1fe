package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/cost"
	"github.com/firn-backup/firn/internal/plan"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/units"
)

func newPlan(c *command) *cobra.Command {
	var date string
	cmd := &cobra.Command{
		Use:         "plan [SET…]",
		Annotations: lists(),
		Short:       "Say what a run would do, and why",
		Long: `Say of each set whether it is due, what snapshot would be made, what would be
deleted and what stays, each with its reason. Nothing is done. With --date it
is as if it were then, and nothing had happened until then.`,
		Example: example("firn plan", "firn plan documents --date 2027-03-01"),
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, names []string) error {
			a, err := c.open(cmd)
			if err != nil {
				return err
			}
			at := a.Now()
			if date != "" {
				if _, at, err = units.ParseTime(date, a.Now().Location()); err != nil {
					return usage("--date: %v", err)
				}
			}
			sets, err := a.Plan(cmd.Context(), names, at)
			if len(sets) == 0 && err != nil {
				return err
			}
			return c.together([]error{err, c.printPlans(a, sets)})
		},
	}
	cmd.Flags().StringVar(&date, "date", "", "as of that `DATE` (its end), or time")
	return cmd
}

// jsonPlan is what a set would do. docs/reference/json.md.
type jsonPlan struct {
	Set        string       `json:"set"`
	SetID      string       `json:"setid,omitempty"`
	Host       string       `json:"host"`
	Date       *string      `json:"date"`
	Schedule   string       `json:"schedule,omitempty"`
	Due        bool         `json:"due"`
	Reason     string       `json:"reason"`
	Overdue    bool         `json:"overdue"`
	Slot       *string      `json:"slot,omitempty"`
	Next       *string      `json:"next,omitempty"`
	TooEarly   *string      `json:"too_early_until,omitempty"`
	Kind       string       `json:"kind"`
	Base       string       `json:"base,omitempty"`
	BaseAt     *string      `json:"base_at,omitempty"`
	KindReason string       `json:"kind_reason"`
	Expire     []jsonExpiry `json:"expire"`
	Keep       []jsonKept   `json:"keep"`
	Blocked    string       `json:"blocked,omitempty"`
	Note       string       `json:"note,omitempty"`
}

type jsonExpiry struct {
	Chain     string   `json:"chain"`
	Snapshots []string `json:"snapshots"`
	At        *string  `json:"at"`
	Size      int64    `json:"size"`
	Reason    string   `json:"reason"`
	AfterNew  bool     `json:"after_new"`
	NotBefore *string  `json:"not_before,omitempty"`
	Fee       *int64   `json:"fee_microdollars,omitempty"`
}

type jsonKept struct {
	Snapshot string   `json:"snapshot"`
	At       *string  `json:"at"`
	Kind     string   `json:"kind"`
	Size     int64    `json:"size"`
	Reasons  []string `json:"reasons"`
}

func planJSON(p *app.Planned) jsonPlan {
	d := &p.Decision
	j := jsonPlan{
		Set: p.Set.Name, Host: p.Set.Host, Date: stampJSON(p.At), Schedule: p.Policy.Schedule.String(), Due: d.Due, Reason: d.Reason, Overdue: d.Overdue,
		Slot: stampJSON(d.Slot), Next: stampJSON(d.Next), Kind: string(d.Kind), Base: d.Base, KindReason: d.KindReason,
		Expire: []jsonExpiry{}, Keep: []jsonKept{}, Blocked: d.Blocked, Note: p.Note,
	}
	if !p.New {
		j.SetID = p.Set.ID
	}
	if d.TooEarly {
		j.TooEarly = stampJSON(d.TooEarlyUntil)
	}
	if s, ok := p.Snapshot(d.Base); ok {
		j.BaseAt = stampJSON(s.At)
	}
	for i := range d.Expire {
		j.Expire = append(j.Expire, expiryJSON(p, &d.Expire[i]))
	}
	for _, k := range d.Keep {
		x := jsonKept{Snapshot: k.ID, At: stampJSON(p.At), Kind: string(d.Kind), Reasons: k.Reasons}
		if s, ok := p.Snapshot(k.ID); ok {
			x.At, x.Kind, x.Size = stampJSON(s.At), string(s.Kind), s.Totals.Stored
		}
		j.Keep = append(j.Keep, x)
	}
	return j
}

func expiryJSON(p *app.Planned, e *plan.Expiry) jsonExpiry {
	j := jsonExpiry{Chain: e.Chain, Snapshots: e.IDs, Reason: e.Reason, AfterNew: e.AfterNew, NotBefore: stampJSON(e.NotBefore)}
	if e.FeeKnown {
		j.Fee = &e.Fee
	}
	if s, ok := p.Snapshot(e.Chain); ok {
		j.At = stampJSON(s.At)
	}
	j.Size = chainSize(p, e)
	return j
}

// chainSize is what a chain takes in the vault.
func chainSize(p *app.Planned, e *plan.Expiry) int64 {
	n := int64(0)
	for _, id := range e.IDs {
		s, _ := p.Snapshot(id)
		n += s.Totals.Stored
	}
	return n
}

func (c *command) printPlans(a *app.App, sets []app.Planned) error {
	if c.json {
		list := []jsonPlan{}
		for i := range sets {
			list = append(list, planJSON(&sets[i]))
		}
		return c.document(list)
	}
	for i := range sets {
		if i > 0 {
			c.printf("\n")
		}
		c.printPlan(a, &sets[i])
	}
	return nil
}

// printPlan prints one plan, a line a statement.
func (c *command) printPlan(a *app.App, p *app.Planned) {
	d := &p.Decision
	line := func(key, format string, args ...any) {
		c.printf("  %-10s  %s\n", key, clean(fmt.Sprintf(format, args...)))
	}
	state := "not due"
	switch {
	case d.Due:
		state = "due"
	case d.TooEarly:
		state = "too early"
	}
	if d.Overdue {
		state += ", overdue"
	}
	c.printf("%s: %s: %s\n", clean(setLabel(a, p.Set)), state, clean(d.Reason))
	what, would := "an incremental snapshot: ", "would make"
	switch {
	case !app.HasSnapshots(p.Target):
		what, would = "", "would store"
	case d.Kind == snapshot.Full:
		what = "a full snapshot: "
	}
	if d.Due {
		would = map[string]string{"would make": "makes", "would store": "stores"}[would]
	}
	line(would, "%s%s", what, d.KindReason)
	if s, ok := p.Unfinished(); ok {
		line("goes on", "with the unfinished attempt of %s", c.stamp(s.At))
	}
	if !d.Next.IsZero() {
		line("next", "%s", c.stamp(d.Next))
	}
	for i := range d.Expire {
		line(c.expiryKey(p, &d.Expire[i]), "%s", c.expiryText(p, &d.Expire[i]))
	}
	if d.Blocked != "" {
		line("blocked", "nothing is deleted: %s", d.Blocked)
	}
	if p.Note != "" {
		line("note", "%s", p.Note)
	}
	for _, k := range d.Keep {
		s, ok := p.Snapshot(k.ID)
		if !ok {
			line("keeps", "the new snapshot: %s", strings.Join(k.Reasons, ", "))
			continue
		}
		line("keeps", "%s  %-11s  %s: %s", c.stamp(s.At), s.Kind, s.ID, strings.Join(k.Reasons, ", "))
	}
}

func (c *command) expiryKey(p *app.Planned, e *plan.Expiry) string {
	if e.Early(p.At) || e.Locked(p.At) {
		return "waits"
	}
	return "deletes"
}

// expiryText says of a chain why it goes, and when.
func (c *command) expiryText(p *app.Planned, e *plan.Expiry) string {
	text := "the chain " + e.Chain
	if s, ok := p.Snapshot(e.Chain); ok {
		text = "the chain of " + c.stamp(s.At)
	}
	text += fmt.Sprintf(", %s, %s: %s", plural(int64(len(e.IDs)), "snapshot"), units.Size(chainSize(p, e)), e.Reason)
	if e.AfterNew {
		text += "; once the new snapshot is stored"
	}
	switch {
	case e.Locked(p.At):
		text += fmt.Sprintf("; it is locked until %s: nothing deletes it sooner", c.stamp(e.LockedUntil))
	case e.Early(p.At):
		text += "; " + c.earlyText(e)
	}
	return text
}

// earlyText says until when an expired chain waits, and what it costs not to.
func (c *command) earlyText(e *plan.Expiry) string {
	fee := "at an unknown price"
	if e.FeeKnown {
		fee = "for " + cost.Money(e.Fee).String()
	}
	return fmt.Sprintf("its minimum storage duration is over at %s; firn prune --allow-early-delete deletes it sooner, %s", c.stamp(e.NotBefore), fee)
}
