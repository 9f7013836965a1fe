package plan

import (
	"fmt"
	"slices"
	"time"
)

// retain fills what expires and what stays.
func (d *Decision) retain(now time.Time, p Policy, f *forest, h []Snapshot, r Rules) {
	if len(f.chains) == 0 {
		return
	}
	fates := judge(now, p, f)
	gone := map[string]bool{}
	for _, x := range fates {
		if x.expired {
			gone[x.first().ID] = true
		}
	}
	if d.Due {
		fates = judge(now, p, grow(append(slices.Clone(h), d.coming(now, p, h)), p.ByDate))
	}
	if i, _, _ := f.safe(); i >= 0 {
		d.Newest = f.chains[i].first().ID
	}
	if newest := f.chains[len(f.chains)-1]; !p.Retention.None() && !d.Due && !newest.whole {
		d.Blocked = fmt.Sprintf("the newest chain, that of %s, is not complete", p.when(newest.first().At))
	}
	for _, x := range fates {
		if !x.expired || d.Blocked != "" {
			for _, s := range x.snaps {
				reasons := x.kept[s.ID]
				if len(reasons) == 0 {
					reasons = []string{x.why}
				}
				if x.expired {
					reasons = []string{d.Blocked}
				}
				d.Keep = append(d.Keep, Kept{ID: s.ID, Reasons: reasons})
			}
			continue
		}
		e := Expiry{Chain: x.first().ID, IDs: x.deletionOrder(), Reason: x.why, AfterNew: !gone[x.first().ID]}
		e.charge(now, x.snaps, r)
		d.Expire = append(d.Expire, e)
	}
}

// coming is the snapshot that is due, as if it were stored.
func (d *Decision) coming(now time.Time, p Policy, h []Snapshot) Snapshot {
	s := Snapshot{At: now, Kind: d.Kind, Base: d.Base, Complete: true, N: 1, Stored: now, Vault: p.Vault}
	for _, x := range h {
		s.N = max(s.N, x.N+1)
	}
	return s
}

// charge fills from when on a chain can be deleted without a fee, and the fee of now.
func (e *Expiry) charge(now time.Time, snaps []Snapshot, r Rules) {
	for _, s := range snaps {
		stored := s.Stored
		if stored.IsZero() {
			stored = s.At
		}
		if t := stored.Add(time.Duration(s.LockDays) * 24 * time.Hour); s.LockDays > 0 && t.After(e.LockedUntil) {
			e.LockedUntil = t
		}
		if s.MinDays <= 0 {
			continue
		}
		if t := stored.Add(time.Duration(s.MinDays) * 24 * time.Hour); t.After(e.NotBefore) {
			e.NotBefore = t
		}
	}
	if !e.Locked(now) {
		e.LockedUntil = time.Time{}
	}
	if !e.Early(now) {
		e.NotBefore = time.Time{}
		return
	}
	if r.Fee != nil {
		e.Fee, e.FeeKnown = r.Fee(snaps, now)
	}
}

// fate is what becomes of a chain.
type fate struct {
	*chain
	expired bool
	why     string
	kept    map[string][]string // snapshots that rules keep
}

// judge says what becomes of every chain, in their order.
func judge(now time.Time, p Policy, f *forest) []fate {
	kept := keep(now, p, f)
	complete, holder, made := f.safe()
	fates := make([]fate, len(f.chains))
	for i, c := range f.chains {
		x := fate{chain: c, kept: kept}
		rules := 0
		var by Snapshot
		for _, s := range c.snaps {
			if len(kept[s.ID]) > 0 {
				rules++
				by = s
			}
		}
		age := p.Retention.Expire
		x.why = ""
		switch {
		case p.Retention.None():
			x.why = "nothing of the set expires"
		case i == complete:
			x.why = "the newest complete chain never expires"
		case i == holder:
			x.why = "the chain with the newest snapshot never expires"
		case i == made:
			x.why = "the chain with the snapshot that was made last never expires"
		case complete < 0:
			x.why = "the set has no complete chain"
		case i > complete:
			x.why = "there is no newer complete chain"
		case c.going:
			x.why = "an unfinished backup goes on its chain"
		case rules > 0:
			x.why = "the snapshot of " + p.when(by.At) + " in its chain is kept: " + kept[by.ID][0]
		case age > 0 && c.latest().After(backward(now, age)):
			x.why = fmt.Sprintf("its chain's newest snapshot, of %s, is not older than expire %s until %s",
				p.when(c.latest()), span(age), p.when(forward(c.latest().In(p.Zone), age)))
		case age > 0:
			x.expired = true
			x.why = fmt.Sprintf("its newest snapshot, of %s, is older than expire %s, and there is a newer complete chain, that of %s",
				p.when(c.latest()), span(age), p.when(f.chains[complete].first().At))
		default:
			x.expired = true
			x.why = "no rule keeps a snapshot of it, and there is a newer complete chain, that of " + p.when(f.chains[complete].first().At)
		}
		fates[i] = x
	}
	return fates
}

// safe finds the newest chain that is complete, the one that holds the newest snapshot that can be
// restored, and the one that holds the last that was made, which by date may be another; -1 where there is none.
func (f *forest) safe() (complete, holder, made int) {
	complete, holder, made = -1, -1, -1
	last := uint64(0)
	for i, c := range f.chains {
		if c.whole {
			complete = i
		}
		if c.usable > 0 && (holder < 0 || f.order(c.tip(), f.chains[holder].tip()) > 0) {
			holder = i
		}
		for _, s := range c.snaps {
			if s.Complete && s.N >= last {
				made, last = i, s.N
			}
		}
	}
	return complete, holder, made
}

// keep says which snapshots the rules keep, and by which.
func keep(now time.Time, p Policy, f *forest) map[string][]string {
	if !p.Retention.Keeps() {
		return nil
	}
	var all []Snapshot // newest first
	for _, c := range f.chains {
		for _, s := range c.snaps {
			if s.Complete {
				all = append(all, s)
			}
		}
	}
	slices.SortFunc(all, func(a, b Snapshot) int { return f.order(b, a) })
	kept := map[string][]string{}
	r := p.Retention
	for i, s := range all {
		if i < r.Last {
			kept[s.ID] = append(kept[s.ID], fmt.Sprintf("keep-last %d", r.Last))
		}
		if r.Within > 0 && !s.At.Before(backward(now, r.Within)) {
			kept[s.ID] = append(kept[s.ID], "keep-within "+span(r.Within))
		}
	}
	// Of a day it is the newest date that stands for it.
	slices.SortStableFunc(all, func(a, b Snapshot) int { return b.At.Compare(a.At) })
	for _, rule := range []struct {
		name   string
		n      int
		period func(t time.Time) string
	}{
		{"keep-daily", r.Daily, func(t time.Time) string { return t.Format("2006-01-02") }},
		{"keep-weekly", r.Weekly, func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprint(y, "-W", w) }},
		{"keep-monthly", r.Monthly, func(t time.Time) string { return t.Format("2006-01") }},
		{"keep-yearly", r.Yearly, func(t time.Time) string { return t.Format("2006") }},
	} {
		last, n := "", 0
		for _, s := range all {
			if n >= rule.n {
				break
			}
			if at := rule.period(s.At.In(p.Zone)); at != last {
				last = at
				n++
				kept[s.ID] = append(kept[s.ID], fmt.Sprintf("%s %d: %s", rule.name, rule.n, at))
			}
		}
	}
	return kept
}
