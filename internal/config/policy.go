package config

import (
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/plan"
)

// Timing are the keys of a set that say when it is backed up.
type Timing struct {
	Schedule    plan.Schedule `toml:"schedule"`
	CatchUp     *bool         `toml:"catch-up"`     // nil: as the policy, or true
	TimeZone    string        `toml:"time-zone"`    // a name of the IANA database; empty: the machine's
	MinInterval time.Duration `toml:"min-interval"` // 0: none
	Policy      string        `toml:"policy"`       // a name of plan.Presets; empty: none
}

// Retention are the keys of a set that say what is kept. Zero values: as the policy, or none.
type Retention struct {
	Expire      time.Duration `toml:"expire"`
	KeepLast    *int          `toml:"keep-last"`
	KeepWithin  time.Duration `toml:"keep-within"`
	KeepDaily   *int          `toml:"keep-daily"`
	KeepWeekly  *int          `toml:"keep-weekly"`
	KeepMonthly *int          `toml:"keep-monthly"`
	KeepYearly  *int          `toml:"keep-yearly"`
	Prune       *bool         `toml:"prune"` // after a backup; nil: true
}

// PrunesAfterBackup says whether what has expired is deleted after a backup of the set.
func (s *Set) PrunesAfterBackup() bool { return s.Prune == nil || *s.Prune }

// PlanPolicy is the set's policy: that which it names, with what its own keys say in its place.
func (s *Set) PlanPolicy() (plan.Policy, error) {
	p := plan.Policy{CatchUp: true, Incrementals: plan.NoLimit}
	var err error
	if s.Policy != "" {
		if p, err = plan.Preset(s.Policy); err != nil {
			return p, err
		}
	}
	if p.Zone, err = s.zone(); err != nil {
		return p, err
	}
	if !s.Schedule.IsZero() {
		p.Schedule = s.Schedule
	}
	if s.CatchUp != nil {
		p.CatchUp = *s.CatchUp
	}
	if s.Incrementals != nil {
		p.Incrementals = *s.Incrementals
	}
	if s.MinInterval > 0 {
		p.MinInterval = s.MinInterval
	}
	r := &p.Retention
	if s.Expire > 0 {
		r.Expire = s.Expire
	}
	r.Within = s.KeepWithin
	for _, k := range []struct {
		to   *int
		from *int
	}{{&r.Last, s.KeepLast}, {&r.Daily, s.KeepDaily}, {&r.Weekly, s.KeepWeekly}, {&r.Monthly, s.KeepMonthly}, {&r.Yearly, s.KeepYearly}} {
		if k.from != nil {
			*k.to = *k.from
		}
	}
	return p, nil
}

func (s *Set) zone() (*time.Location, error) {
	if s.TimeZone == "" {
		return time.Local, nil
	}
	return time.LoadLocation(s.TimeZone)
}

// checkPolicy checks when a set is backed up and what is kept.
func (p *parser) checkPolicy(s *Set, at func(string) string) {
	if s.Policy != "" && !slices.Contains(plan.Presets(), s.Policy) {
		p.fault(at("policy"), "there is no policy %q (there is %s)", s.Policy, strings.Join(plan.Presets(), ", "))
	}
	if _, err := s.zone(); err != nil || s.TimeZone == "Local" {
		p.fault(at("time-zone"), "%q is not known here; a time zone is a name such as Europe/Berlin or UTC", s.TimeZone)
	}
	for _, k := range []struct {
		key string
		d   time.Duration
	}{{"expire", s.Expire}, {"keep-within", s.KeepWithin}, {"min-interval", s.MinInterval}} {
		_, there := p.lines[at(k.key)]
		if there && p.good(at(k.key)) && (k.d <= 0 || k.d > maxAge) {
			p.fault(at(k.key), "must be above 0 and no more than 100 years (36525d)")
		}
	}
}

// maxAge bounds durations of sets, so that dates stay in the calendar's years.
const maxAge = 36525 * 24 * time.Hour

// assignSchedule sets a schedule from its text, and returns what would have been wanted if it cannot.
func assignSchedule(dst *plan.Schedule, v any) (want string) {
	text, ok := v.(string)
	var err error
	if ok {
		*dst, err = plan.ParseSchedule(text)
	}
	return unless(ok && err == nil, "a schedule, "+plan.ScheduleForms)
}
