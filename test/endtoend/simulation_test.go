package endtoend_test

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// plannedDay is what firn plan says of a set on a day.
type plannedDay struct {
	Due    bool   `json:"due"`
	Kind   string `json:"kind"`
	BaseAt string `json:"base_at"`
	Expire []struct {
		Snapshots []string `json:"snapshots"`
		AfterNew  bool     `json:"after_new"`
	} `json:"expire"`
}

func (m *machine) decode(into any, args ...string) {
	m.t.Helper()
	must(m.t, json.Unmarshal([]byte(m.must(args...).stdout), into))
}

// snapshotDates are the dates of a set's snapshots by their ids.
func (m *machine) snapshotDates(set string) map[string]string {
	m.t.Helper()
	var list []struct {
		Snapshot string `json:"snapshot"`
		At       string `json:"at"`
	}
	m.decode(&list, "snapshots", set, "--json")
	dates := map[string]string{}
	for _, s := range list {
		dates[s.Snapshot] = s.At[:10]
	}
	return dates
}

// TestThreeYears: firn run, once a day with the policy of btrsend, does what that program planned, row by row. Days
// on which nothing happens are passed over, but for some in the first weeks, unless FIRN_SOAK is set; then it is all of them.
func TestThreeYears(t *testing.T) {
	t.Parallel()
	f, err := os.Open("../../internal/plan/testdata/btrsend-oracle.csv")
	must(t, err)
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	must(t, err)
	rows = rows[1:]
	quiet := func(i int) bool { return i < 0 || i >= len(rows) || rows[i][1] == "none" && rows[i][4] == "" }
	last := len(rows)
	if os.Getenv("FIRN_SOAK") == "" {
		last = slices.IndexFunc(rows, func(r []string) bool { return r[0] == "2023-07-08" })
	}

	m := newMachine(t, memory(t))
	must(t, os.MkdirAll(m.path(".config", "firn"), 0o700))
	must(t, os.WriteFile(m.path(".config", "firn", "config.toml"), []byte("[set.home]\npaths = [\"~/data\"]\npolicy = \"btrsend\"\n"), 0o600))
	must(t, os.MkdirAll(m.path("data"), 0o755))
	dates := map[string]string{}
	for i, row := range rows[:last] {
		if os.Getenv("FIRN_SOAK") == "" && quiet(i) && (i > 20 || quiet(i-1)) {
			continue
		}
		m.now = row[0] + "T00:00:00Z"
		var plans []plannedDay
		m.decode(&plans, "plan", "home", "--json")
		p := plans[0]
		kind, base, deleted := "none", "", []string{}
		if p.Due {
			kind, base = p.Kind[:1], p.BaseAt
			if kind == "f" {
				kind = "c"
			}
			base, _, _ = strings.Cut(base, "T")
		}
		for _, e := range p.Expire {
			for _, id := range e.Snapshots {
				deleted = append(deleted, dates[id])
			}
		}
		slices.Sort(deleted)
		if kind != row[1] || base != row[2] || strings.Join(deleted, " ") != row[4] {
			t.Fatalf("%s: %s %q, deleting %v; want %v", row[0], kind, base, deleted, row)
		}
		must(t, os.WriteFile(m.path("data", "today"), []byte(row[0]), 0o644))
		m.must("run")
		if !quiet(i) {
			dates = m.snapshotDates("home")
		}
		if want, _ := strconv.Atoi(row[5]); len(dates) != want {
			t.Fatalf("%s: %d snapshots, want %d", row[0], len(dates), want)
		}
	}
	m.must("verify")
	back := filepath.Join(m.home, "back")
	m.must("restore", "home", "--to", back)
	got, err := os.ReadFile(filepath.Join(back, m.path("data", "today")))
	must(t, err)
	if _, err := time.Parse("2006-01-02", string(got)); err != nil {
		t.Error(err)
	}
}
