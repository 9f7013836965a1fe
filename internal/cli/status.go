package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/units"
)

func newStatus(c *command) *cobra.Command {
	return &cobra.Command{
		Use:         "status [SET…]",
		Annotations: lists(),
		Short:       "Show how sets are, and what is wrong",
		Long: `Show of each set its last snapshot, when the next is due, its chain, what it takes
in the vault, and what is wrong. The exit code is 1 when a set is overdue, has
no snapshot although it has a schedule, or its last backup failed. No vault is asked.`,
		Example: example("firn status", "firn status --json", "firn status -q || echo look after your backups"),
		Args:    cobra.ArbitraryArgs,
		RunE:    func(cmd *cobra.Command, names []string) error { return c.status(cmd, names) },
	}
}

// States of a set, the worst first.
const (
	stateFailed  = "failed"  // the last backup failed, or was killed
	stateOverdue = "overdue" // a scheduled one was missed by more than a day
	statePartial = "partial" // the last backup could not read everything
	stateDue     = "due"
	stateRunning = "running"
	stateGood    = "ok"
)

// jsonStatus is how a set is. docs/reference/json.md.
type jsonStatus struct {
	Set        string   `json:"set"`
	SetID      string   `json:"setid,omitempty"`
	Host       string   `json:"host"`
	State      string   `json:"state"`
	Problems   []string `json:"problems"`
	Good       *string  `json:"last_good,omitempty"`
	Snapshot   string   `json:"snapshot,omitempty"`
	Next       *string  `json:"next,omitempty"`
	Due        bool     `json:"due"`
	Overdue    bool     `json:"overdue"`
	Reason     string   `json:"reason"`
	Chain      string   `json:"chain,omitempty"`
	Length     int      `json:"chain_length"`
	Snapshots  int      `json:"snapshots"`
	Size       int64    `json:"size"`
	Unfinished string   `json:"unfinished,omitempty"`
	LastRun    *jsonRun `json:"last_run,omitempty"`
	Retrievals int      `json:"retrievals_pending"`
	Ready      int      `json:"retrievals_ready"`
	good       time.Time
}

func (c *command) status(cmd *cobra.Command, names []string) error {
	ctx := cmd.Context()
	a, err := c.open(cmd)
	if err != nil {
		return err
	}
	sets, unplanned := a.Plan(ctx, names, a.Now())
	if len(sets) == 0 && unplanned != nil {
		return unplanned
	}
	list := []jsonStatus{}
	var wrong []string
	for i := range sets {
		s, err := c.statusOf(ctx, a, &sets[i])
		if err != nil {
			return err
		}
		list = append(list, s)
		if s.State == stateFailed || s.State == stateOverdue {
			wrong = append(wrong, clean(setLabel(a, sets[i].Set)))
		}
	}
	if c.json {
		err = c.document(list)
	} else {
		c.printStatus(a, sets, list)
	}
	if err == nil && len(wrong) > 0 {
		verb := "needs"
		if len(wrong) > 1 {
			verb = "need"
		}
		err = failure.Errorf(failure.Failed, "%s %s attention", strings.Join(wrong, ", "), verb)
	}
	return c.together([]error{unplanned, err})
}

func (c *command) printStatus(a *app.App, sets []app.Planned, list []jsonStatus) {
	t := newTable("SET", "LAST GOOD", "NEXT DUE", "CHAIN", ">SIZE", "STATE")
	for i, s := range list {
		p := &sets[i]
		good, next, chain := "never", "-", "-"
		if !s.good.IsZero() {
			good = c.stamp(s.good)
		}
		switch {
		case s.Due:
			next = "now"
		case s.Next != nil:
			next = c.stamp(p.Decision.Next)
		}
		if s.Length > 0 {
			chain = "full"
			if s.Length > 1 {
				chain = fmt.Sprintf("full+%d", s.Length-1)
			}
		}
		state := s.State
		if len(s.Problems) > 0 {
			state += ": " + clean(strings.Join(s.Problems, "; "))
		}
		if !app.HasSnapshots(p.Target) {
			chain = p.Target.Set.Kind
		}
		t.row(clean(setLabel(a, p.Set)), good, next, chain, units.Size(s.Size), state)
	}
	t.print(c.output)
}

// lastGood is the set's newest stored snapshot.
func lastGood(p *app.Planned) (catalog.Snapshot, bool) {
	for _, s := range slices.Backward(p.Snapshots) {
		if s.State == catalog.Stored {
			return s, true
		}
	}
	return catalog.Snapshot{}, false
}

func (c *command) statusOf(ctx context.Context, a *app.App, p *app.Planned) (jsonStatus, error) {
	d := &p.Decision
	s := jsonStatus{Set: p.Set.Name, Host: p.Set.Host, State: stateGood, Problems: []string{}, Next: stampJSON(d.Next), Due: d.Due, Overdue: d.Overdue, Reason: d.Reason}
	if d.Due {
		s.State = stateDue
	}
	if !p.New {
		s.SetID = p.Set.ID
	}
	last, ok := lastGood(p)
	if ok {
		s.good, s.Snapshot, s.Chain = last.At, last.ID, last.Chain
	}
	for _, x := range p.Snapshots {
		if x.State != catalog.Stored {
			s.Unfinished = x.ID
			continue
		}
		s.Snapshots++
		s.Size += x.Totals.Stored
		if x.Chain == s.Chain {
			s.Length++
		}
	}
	if err := c.lastRunOf(ctx, a, p, &s); err != nil {
		return s, err
	}
	if !app.HasSnapshots(p.Target) {
		if err := c.singleStatus(ctx, a, p, &s); err != nil {
			return s, err
		}
	}
	s.Good = stampJSON(s.good)
	if s.Unfinished != "" && s.State != stateRunning {
		s.Problems = append(s.Problems, "an unfinished attempt, which the next backup goes on with")
	}
	if d.Overdue {
		s.Problems = append(s.Problems, d.Reason)
		if s.State != stateFailed && s.State != stateRunning {
			s.State = stateOverdue
		}
	}
	if d.Blocked != "" {
		s.Problems = append(s.Problems, d.Blocked)
	}
	return s, c.retrievalsOf(ctx, a, p, &s)
}

// lastRunOf judges the set's last backup.
func (c *command) lastRunOf(ctx context.Context, a *app.App, p *app.Planned, s *jsonStatus) error {
	db, err := a.Catalog(ctx, false)
	if noCatalog(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if p.Set.Host != a.Host {
		return nil // its runs are not in this catalog
	}
	const looked = 200 // verifications and restores between two backups
	runs, err := db.Runs(ctx, p.Set.Name, looked)
	if err != nil {
		return err
	}
	if !app.HasSnapshots(p.Target) {
		for _, r := range runs { // a run that had nothing to store is good, too
			if app.StoresSet(r.Command) && !r.Ended.IsZero() && (r.Exit == 0 || r.Exit == exitCode(failure.Partial)) {
				s.good = r.Started
				break
			}
		}
	}
	i := slices.IndexFunc(runs, func(r catalog.Run) bool { return app.StoresSet(r.Command) })
	if i < 0 {
		return nil
	}
	r := runs[i]
	j := runJSON(r)
	s.LastRun = &j
	switch {
	case r.Ended.IsZero() && a.Alive(p.Set):
		s.State = stateRunning
	case r.Ended.IsZero():
		s.State = stateFailed
		s.Problems = append(s.Problems, "the last backup, of "+c.stamp(r.Started)+", was killed")
	case r.Exit == exitCode(failure.Partial):
		if s.State == stateGood {
			s.State = statePartial
		}
		s.Problems = append(s.Problems, "the last backup is done in part: "+r.Summary)
	case r.Exit != 0 && r.Exit != exitCode(failure.NotReady):
		s.State = stateFailed
		s.Problems = append(s.Problems, "the last backup, of "+c.stamp(r.Started)+", failed: "+r.Summary)
	}
	return nil
}

// singleStatus fills what there is of a set of single archives.
func (c *command) singleStatus(ctx context.Context, a *app.App, p *app.Planned, s *jsonStatus) error {
	db, err := a.Catalog(ctx, false)
	if err != nil {
		if noCatalog(err) {
			err = nil
		}
		return err
	}
	runs, err := db.ItemRuns(ctx, p.Set.ID)
	if err != nil {
		return err
	}
	s.Snapshots = len(runs)
	if s.Chain, s.Length = "", 0; len(runs) > 0 {
		last := runs[len(runs)-1]
		s.Snapshot = last.ID
		if s.good.Before(last.At) && s.LastRun == nil { // recovered, or another host's
			s.good = last.At
		}
	}
	asked := map[string][]coldstore.Retrieval{}
	looked := map[string]bool{}
	return db.Items(ctx, p.Set.ID, catalog.ItemQuery{All: true}, func(i catalog.Item) error {
		if i.Archive.Archive == "" || !i.Deleted.IsZero() {
			return nil
		}
		s.Size += i.Archive.Size
		if !looked[i.Vault] {
			looked[i.Vault] = true
			if err := askedOf(ctx, db, i.Vault, p.At, asked); err != nil {
				return err
			}
		}
		s.count(asked[i.Archive.Archive])
		return nil
	})
}

// askedOf adds what was asked of a vault and is not over, by archive.
func askedOf(ctx context.Context, db *catalog.DB, vault string, at time.Time, asked map[string][]coldstore.Retrieval) error {
	list, err := db.Retrievals(ctx, vault, "")
	for _, r := range list {
		if r.Expires.IsZero() || r.Expires.After(at) {
			asked[r.Archive] = append(asked[r.Archive], r)
		}
	}
	return err
}

func (s *jsonStatus) count(list []coldstore.Retrieval) {
	for _, r := range list {
		if r.Ready {
			s.Ready++
		} else {
			s.Retrievals++
		}
	}
}

// retrievalsOf counts what was asked of the vaults for the set's archives.
func (c *command) retrievalsOf(ctx context.Context, a *app.App, p *app.Planned, s *jsonStatus) error {
	db, err := a.Catalog(ctx, false)
	if err != nil {
		if noCatalog(err) {
			err = nil
		}
		return err
	}
	asked := map[string][]coldstore.Retrieval{}
	looked := map[string]bool{}
	for i := range p.Snapshots {
		if vault := p.Snapshots[i].Vault; !looked[vault] {
			looked[vault] = true
			if err := askedOf(ctx, db, vault, p.At, asked); err != nil {
				return err
			}
		}
	}
	for i := range p.Snapshots {
		if len(asked) == 0 {
			break
		}
		s.count(asked[p.Snapshots[i].ManifestPart.Archive])
		vols, err := db.Volumes(ctx, p.Snapshots[i].ID)
		if err != nil {
			return err
		}
		for _, v := range vols {
			s.count(asked[v.Archive])
		}
	}
	if s.Retrievals > 0 {
		s.Problems = append(s.Problems, plural(int64(s.Retrievals), "retrieval")+" not ready yet")
	}
	return nil
}
