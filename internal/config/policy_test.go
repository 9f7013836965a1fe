package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/firn-backup/firn/internal/plan"
)

func TestPolicy(t *testing.T) {
	t.Parallel()
	c, err := parse(t, `
[set.plain]
paths = ["/x"]
[set.preset]
paths = ["/x"]
policy = "btrsend"
[set.changed]
paths = ["/x"]
policy = "btrsend"
catch-up = true
incrementals = 3
expire = "180d"
keep-monthly = 12
[set.own]
paths = ["/x"]
schedule = "every 12h"
catch-up = false
time-zone = "UTC"
min-interval = "6h"
incrementals = 0
expire = "2w"
keep-last = 1
keep-within = "36h"
keep-daily = 2
keep-weekly = 3
keep-monthly = 4
keep-yearly = 5
prune = false
`)
	if err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	schedule := func(s string) plan.Schedule {
		x, err := plan.ParseSchedule(s)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for name, want := range map[string]plan.Policy{
		"plain": {CatchUp: true, Incrementals: plan.NoLimit, Zone: time.Local},
		"preset": {Schedule: schedule("monthdays 1,7,14,21"), Incrementals: 11, Zone: time.Local, ByDate: true,
			Retention: plan.Retention{Expire: 90 * day}},
		"changed": {Schedule: schedule("monthdays 1,7,14,21"), CatchUp: true, Incrementals: 3, Zone: time.Local, ByDate: true,
			Retention: plan.Retention{Expire: 180 * day, Monthly: 12}},
		"own": {Schedule: schedule("every 12h"), Zone: time.UTC, MinInterval: 6 * time.Hour,
			Retention: plan.Retention{Expire: 14 * day, Last: 1, Within: 36 * time.Hour, Daily: 2, Weekly: 3, Monthly: 4, Yearly: 5}},
	} {
		got, err := c.Sets[name].PlanPolicy()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() })); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if c.Sets[name].PrunesAfterBackup() != (name != "own") {
			t.Errorf("%s: prune", name)
		}
	}
}

func TestPolicyFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`schedule = "monthdays 0"`:      "must be a schedule",
		`schedule = 7`:                  "must be a schedule",
		`schedule = "cron 0 2 30 2 *"`:  "must be a schedule",
		`policy = "grandfather"`:        "there is no policy",
		`time-zone = "Europe/Atlantis"`: "not known here",
		`expire = "0"`:                  "above 0",
		`expire = "3 months"`:           "must be a duration",
		`expire = 90`:                   "must be a duration",
		`keep-within = "99999d"`:        "above 0",
		`min-interval = "-1d"`:          "must be a duration",
		`keep-last = -1`:                "0 or more",
		`catch-up = "yes"`:              "true or false",
		`keep-hourly = 3`:               "unknown key",
	} {
		_, err := parse(t, "[set.x]\npaths = [\"/x\"]\n"+text+"\n")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), ":3: set.x.") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
