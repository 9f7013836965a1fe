package plan

import (
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/snapshot"
)

func at(t *testing.T, s string) time.Time {
	t.Helper()
	x, err := time.Parse("2006-01-02 15:04", s)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func schedule(t *testing.T, s string) Schedule {
	t.Helper()
	x, err := ParseSchedule(s)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestDue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		schedule, last, now string
		catchUp             bool
		min                 time.Duration
		due, overdue        bool
		next, reason        string
	}{
		{"cron 0 2 * * *", "2026-05-01 02:00", "2026-05-01 20:00", true, 0, false, false, "2026-05-02 02:00", "was the last time"},
		{"cron 0 2 * * *", "2026-05-01 02:00", "2026-05-02 02:00", true, 0, true, false, "2026-05-03 02:00", "scheduled for 2026-05-02 02:00:00"},
		{"cron 0 2 * * *", "2026-05-01 02:00", "2026-05-03 01:59", true, 0, true, false, "2026-05-03 02:00", "scheduled for"},
		{"cron 0 2 * * *", "2026-05-01 02:00", "2026-05-03 03:00", true, 0, true, true, "2026-05-04 02:00", "scheduled for 2026-05-03"},
		{"cron 0 2 * * 0", "2026-05-03 02:00", "2026-05-12 02:00", true, 0, true, true, "2026-05-17 02:00", "was missed"},
		{"cron 0 2 * * 0", "2026-05-03 02:00", "2026-05-12 02:00", false, 0, false, true, "2026-05-17 02:00", "is not caught up"},
		{"monthdays 1,15", "2026-05-01 10:00", "2026-05-15 00:00", false, 0, true, false, "2026-06-01 00:00", "scheduled for 2026-05-15"},
		{"monthdays 1,15", "2026-05-01 10:00", "2026-05-15 23:59", false, 0, true, false, "2026-06-01 00:00", "scheduled for 2026-05-15"},
		{"monthdays 1,15", "2026-05-01 10:00", "2026-05-16 00:00", false, 0, false, true, "2026-06-01 00:00", "was missed"},
		{"every 24h", "2026-05-01 10:00", "2026-05-02 09:00", true, 0, false, false, "2026-05-02 10:00", "every 24h"},
		{"every 24h", "2026-05-01 10:00", "2026-05-02 10:00", true, 0, true, false, "2026-05-03 10:00", "every 24h"},
		{"every 24h", "2026-05-01 10:00", "2026-05-03 11:00", true, 0, true, true, "2026-05-04 11:00", "every 24h"},
		{"every 24h", "2026-06-01 10:00", "2026-05-03 11:00", true, 0, true, false, "2026-05-04 11:00", "no snapshot has a date up to now"},
		{"every 24h", "2026-05-01 10:00", "2026-05-03 11:00", true, 90 * day, false, false, "2026-07-30 10:00", "min-interval 90d"},
		{"cron 0 2 * * *", "2026-05-01 10:00", "2026-05-03 11:00", true, 90 * day, false, false, "2026-07-30 10:00", "min-interval 90d"},
		{"cron 0 2 * * *", "2026-05-01 10:00", "2026-05-03 11:00", false, 90 * day, false, false, "2026-07-31 02:00", "min-interval 90d"},
		{"every 24h", "", "2026-05-03 11:00", true, 90 * day, true, true, "2026-05-04 11:00", "no snapshot yet"},
	} {
		p := Policy{Schedule: schedule(t, c.schedule), CatchUp: c.catchUp, MinInterval: c.min, Incrementals: NoLimit}
		var h []Snapshot
		if c.last != "" {
			h = append(h, Snapshot{ID: "a", N: 1, At: at(t, c.last), Kind: snapshot.Full, Complete: true})
		}
		d := Decide(at(t, c.now), p, h, Rules{})
		if d.Due != c.due || d.Overdue != c.overdue || !d.Next.Equal(at(t, c.next)) || !strings.Contains(d.Reason, c.reason) {
			t.Errorf("%+v:\ndue %v, overdue %v, next %s: %s", c, d.Due, d.Overdue, d.Next, d.Reason)
		}
	}
}

// chain is a full and so many incrementals, a day apart, the last at a date.
func line(t *testing.T, name string, n uint64, incrementals int, last string) []Snapshot {
	t.Helper()
	end := at(t, last+" 00:00")
	var list []Snapshot
	for i := range incrementals + 1 {
		s := Snapshot{ID: name + string(rune('0'+i)), N: n + uint64(i), At: end.AddDate(0, 0, i-incrementals), Kind: snapshot.Full, Complete: true}
		if i > 0 {
			s.Kind, s.Base = snapshot.Incremental, list[i-1].ID
		}
		list = append(list, s)
	}
	return list
}

func gone(d Decision) string {
	var list []string
	for _, e := range d.Expire {
		list = append(list, e.Chain)
	}
	return strings.Join(list, " ")
}

func TestRetention(t *testing.T) {
	t.Parallel()
	h := line(t, "a", 1, 2, "2026-01-10")
	h = append(h, line(t, "b", 4, 2, "2026-02-10")...)
	h = append(h, line(t, "c", 7, 2, "2026-03-10")...)
	h = append(h, line(t, "d", 10, 0, "2026-03-20")...)
	now := at(t, "2026-03-25 00:00")
	for _, c := range []struct {
		name string
		r    Retention
		want string
	}{
		{"nothing", Retention{}, ""},
		{"expire", Retention{Expire: 30 * day}, "a0 b0"},
		{"to the day", Retention{Expire: 43 * day}, "a0 b0"},
		{"a day more", Retention{Expire: 44 * day}, "a0"},
		{"last", Retention{Last: 2}, "a0 b0"},
		{"last but one chain", Retention{Last: 1}, "a0 b0 c0"},
		{"both", Retention{Expire: 10 * day, Last: 5}, "a0"},
		{"within", Retention{Within: 20 * day}, "a0 b0"},
		{"monthly", Retention{Monthly: 2}, "a0 c0"}, // of March it is d that stands for it
		{"yearly", Retention{Yearly: 9}, "a0 b0 c0"},
		{"weekly", Retention{Weekly: 2}, "a0 b0"},
		{"daily", Retention{Daily: 5}, "a0"},
	} {
		if got := gone(Decide(now, Policy{Retention: c.r}, h, Rules{})); got != c.want {
			t.Errorf("%s: %q goes, not %q", c.name, got, c.want)
		}
	}
	// An attempt builds on b.
	going := append(h[:len(h):len(h)], Snapshot{ID: "x", N: 11, At: now, Kind: snapshot.Incremental, Base: "b2"})
	if got := gone(Decide(now, Policy{Retention: Retention{Last: 1}}, going, Rules{})); got != "a0 c0" {
		t.Errorf("with an attempt: %q goes", got)
	}
	// d is damaged: nothing goes as long as no new snapshot is due, and then for its sake.
	broken := append([]Snapshot(nil), h...)
	broken[len(broken)-1].Complete = false
	broken = append(broken, Snapshot{ID: "d1", N: 11, At: now, Kind: snapshot.Incremental, Base: "d0", Complete: true})
	d := Decide(now, Policy{Retention: Retention{Last: 1}}, broken, Rules{})
	if len(d.Expire) != 0 || d.Blocked == "" || d.Base != "c2" && d.Kind != snapshot.Full {
		t.Errorf("%+v", d)
	}
}

func TestVaultChanges(t *testing.T) {
	t.Parallel()
	h := line(t, "a", 1, 1, "2026-01-10")
	for i := range h {
		h[i].Vault = "dir:/old"
	}
	p := Policy{Incrementals: NoLimit, Vault: "dir:/old"}
	if d := Decide(at(t, "2026-02-01 00:00"), p, h, Rules{}); d.Base != "a1" {
		t.Errorf("%+v", d)
	}
	p.Vault = "dir:/new"
	if d := Decide(at(t, "2026-02-01 00:00"), p, h, Rules{}); d.Kind != snapshot.Full || !strings.Contains(d.KindReason, "another vault") {
		t.Errorf("%+v", d)
	}
}
