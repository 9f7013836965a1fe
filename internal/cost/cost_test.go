package cost

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/coldstore"
)

func table(t testing.TB) *Table {
	t.Helper()
	tb, err := Prices()
	if err != nil {
		t.Fatal(err)
	}
	return tb
}

func virginia(class string) Place { return Place{class, "us-east-1"} }

const tib = 1 << 40

// What AWS itself reckons for 15 million objects of 100 TB, and what is easily reckoned by hand.
func TestKnownCosts(t *testing.T) {
	t.Parallel()
	tb := table(t)
	for _, c := range []struct {
		class                     string
		r                         Retrieval
		requests, retrieve, extra string
		from, to                  time.Duration
	}{
		{"GLACIER", Retrieval{Requests: 15_000_000, Bytes: 100 * tib}, "750", "1024", "78.506667", 3 * time.Hour, 5 * time.Hour},
		{"GLACIER", Retrieval{Tier: coldstore.Expedited, Requests: 15_000_000, Bytes: tib}, "150000", "30.72", "0.785067", time.Minute, 5 * time.Minute},
		{"GLACIER", Retrieval{Tier: coldstore.Bulk, Requests: 1000, Bytes: tib, Days: 30}, "0", "0", "23.552", 5 * time.Hour, 12 * time.Hour},
		{"DEEP_ARCHIVE", Retrieval{Tier: coldstore.Bulk, Requests: 1000, Bytes: tib}, "0.025", "2.56", "0.785067", 0, 48 * time.Hour},
		{Vault, Retrieval{Requests: 1000, Bytes: tib}, "0.05", "10.24", "0", 3 * time.Hour, 5 * time.Hour},
		{Vault, Retrieval{Tier: coldstore.Bulk, Requests: 3, Bytes: 1}, "0.000075", "0.000001", "0", 5 * time.Hour, 12 * time.Hour},
		{"GLACIER_IR", Retrieval{Requests: 1000, Bytes: 10 * gib}, "0.01", "0.3", "0", 0, 0},
		{"STANDARD", Retrieval{Requests: 1000, Bytes: tib}, "0.0004", "0", "0", 0, 0},
	} {
		e, err := tb.Retrieve(virginia(c.class), c.r)
		if err != nil {
			t.Errorf("%s %+v: %v", c.class, c.r, err)
			continue
		}
		if e.Requests != money(t, c.requests) || e.Retrieve != money(t, c.retrieve) || e.Copies != money(t, c.extra) || e.WaitFrom != c.from || e.WaitTo != c.to {
			t.Errorf("%s %+v: %+v", c.class, c.r, e)
		}
		if e.Egress != 0 || e.Total() != e.Fees() {
			t.Errorf("%s: egress %s", c.class, e.Egress)
		}
	}
	for gb, want := range map[int64]string{1: "0.09", 10240: "921.6", 10241: "921.685", 51200: "4403.2", 153600: "11571.2", 153700: "11576.2"} {
		e, err := tb.Retrieve(virginia(Vault), Retrieval{Egress: gb * gib})
		if err != nil || e.Egress != money(t, want) || e.Fees() != 0 || e.Total() != e.Egress {
			t.Errorf("%d GB to the internet: %s, %v; want %s", gb, e.Egress, err, want)
		}
	}
}

func money(t testing.TB, s string) Money {
	t.Helper()
	m, err := ParseMoney(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestKeepAndDelete(t *testing.T) {
	t.Parallel()
	tb := table(t)
	for _, c := range []struct {
		class           string
		archives, bytes int64
		want            string
	}{
		{Vault, 0, tib, "3.6864"},
		{"DEEP_ARCHIVE", 1_000_000, 0, "0.20569"}, // overhead alone
		{"GLACIER_IR", 1_000_000, 1, "0.488282"},  // 128 KB each
		{"STANDARD", 1, tib, "23.552"},
	} {
		if got, err := tb.Keep(virginia(c.class), c.archives, c.bytes); err != nil || got != money(t, c.want) {
			t.Errorf("%s, %d archives of %d bytes: %s (%d), %v; want %s", c.class, c.archives, c.bytes, got, got, err, c.want)
		}
	}
	if got, err := tb.Upload(virginia("DEEP_ARCHIVE"), 1_000_000); err != nil || got != 50*Dollar {
		t.Errorf("a million uploads: %s, %v", got, err)
	}
	made := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	big := []Stored{{Bytes: 1000 * gib, Created: made}}
	for after, want := range map[time.Duration]string{
		0: "10.80000033", 60 * day: "3.6", 60*day + time.Second: "3.6", 89*day + 23*time.Hour: "0.12", 90 * day: "0", 91 * day: "0", -day: "10.8",
	} {
		got, err := tb.EarlyDeletion(virginia(Vault), big, made.Add(after))
		low := money(t, want[:min(len(want), 5)])
		if err != nil || got < low || got > low+2 {
			t.Errorf("deleted after %s: %d, %v; want %s", after, got, err, want)
		}
	}
	if n, ok := tb.MinDays("DEEP_ARCHIVE"); n != 180 || !ok {
		t.Errorf("minimum of DEEP_ARCHIVE: %d", n)
	}
}

// What is not known is said to be so; it is never free.
func TestUnknown(t *testing.T) {
	t.Parallel()
	tb := table(t)
	paris := Place{Vault, "eu-west-3"}
	e, err := tb.Retrieve(paris, Retrieval{Tier: coldstore.Bulk, Requests: 1, Bytes: 1})
	if !errors.Is(err, ErrUnknown) || !strings.Contains(fmt.Sprint(err), "eu-west-3") || !strings.Contains(fmt.Sprint(err), "2026-07-28") {
		t.Errorf("Retrieve: %v", err)
	}
	if e.WaitTo != 12*time.Hour || e.Tier != coldstore.Bulk {
		t.Errorf("the time to wait is known: %+v", e)
	}
	_, keep := tb.Keep(paris, 1, 1)
	_, upload := tb.Upload(paris, 1)
	_, early := tb.EarlyDeletion(paris, []Stored{{Bytes: 1}}, time.Now())
	_, byTier := tb.ByTier(paris, Retrieval{})
	_, class := tb.Keep(virginia("TAPE"), 1, 1)
	_, tier := tb.Retrieve(virginia("DEEP_ARCHIVE"), Retrieval{Tier: coldstore.Expedited})
	_, none := tb.Retrieve(virginia("STANDARD"), Retrieval{Tier: coldstore.Bulk})
	for what, err := range map[string]error{"Keep": keep, "Upload": upload, "EarlyDeletion": early, "ByTier": byTier, "class": class, "tier": tier, "no tiers": none} {
		if !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestByTier(t *testing.T) {
	t.Parallel()
	all, err := table(t).ByTier(virginia("GLACIER"), Retrieval{Requests: 10, Bytes: tib})
	if err != nil || len(all) != 3 || all[0].Tier != coldstore.Bulk || all[2].Tier != coldstore.Expedited {
		t.Errorf("%+v, %v", all, err)
	}
}

// Every price of the table is used: more of anything never costs less, never wraps, and is never below what it comes to exactly.
func TestEstimatesGrow(t *testing.T) {
	t.Parallel()
	tb := table(t)
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.Int64Range(-1, math.MaxInt64)
		class := rapid.SampledFrom([]string{Vault, "STANDARD", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"}).Draw(t, "class")
		p := virginia(class)
		a := Retrieval{Requests: count.Draw(t, "requests"), Bytes: count.Draw(t, "bytes"), Egress: count.Draw(t, "egress"), Days: rapid.IntRange(-1, 1e6).Draw(t, "days")}
		var tiers []coldstore.Tier
		for tier := range tb.regions["us-east-1"].Prices[class].Retrieve {
			tiers = append(tiers, tier)
		}
		a.Tier = rapid.SampledFrom(tiers).Draw(t, "tier")
		b := a
		grow := func(n *int64) { *n = plus(max(*n, 0), rapid.Int64Range(0, math.MaxInt64).Draw(t, "more")) }
		grow(&b.Requests)
		grow(&b.Bytes)
		grow(&b.Egress)
		b.Days += rapid.IntRange(0, 1e6).Draw(t, "more days")
		ea, err1 := tb.Retrieve(p, a)
		eb, err2 := tb.Retrieve(p, b)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		for what, c := range map[string][2]Money{
			"requests": {ea.Requests, eb.Requests}, "retrieve": {ea.Retrieve, eb.Retrieve}, "copies": {ea.Copies, eb.Copies},
			"egress": {ea.Egress, eb.Egress}, "total": {ea.Total(), eb.Total()},
		} {
			if c[0] < 0 || c[1] < c[0] {
				t.Fatalf("%s: %d, then %d", what, c[0], c[1])
			}
		}
		n := count.Draw(t, "archives")
		ka, _ := tb.Keep(p, n, a.Bytes)
		kb, _ := tb.Keep(p, plus(max(n, 0), 1), b.Bytes)
		if ka < 0 || kb < ka {
			t.Fatalf("Keep: %d, then %d", ka, kb)
		}
		at := time.Unix(rapid.Int64Range(0, 1e10).Draw(t, "at"), 0)
		later := at.Add(time.Duration(rapid.Int64Range(0, int64(200*day)).Draw(t, "later")))
		stored := []Stored{{Bytes: a.Bytes, Created: time.Unix(5e9, 0)}}
		da, _ := tb.EarlyDeletion(p, stored, at)
		db, _ := tb.EarlyDeletion(p, stored, later)
		twice, _ := tb.EarlyDeletion(p, append(stored, stored...), at)
		if db > da || db < 0 || twice < da {
			t.Fatalf("EarlyDeletion: %d, later %d, twice as much %d", da, db, twice)
		}
	})
}

// charge against arithmetic without limits.
func TestCharge(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, math.MaxInt64).Draw(t, "n")
		price := rapid.Int64Range(0, math.MaxInt64).Draw(t, "price")
		per := rapid.Int64Range(1, math.MaxInt64).Draw(t, "per")
		want := new(big.Int).Mul(big.NewInt(n), big.NewInt(price))
		want.Add(want, big.NewInt(per-1)).Div(want, big.NewInt(per))
		if !want.IsInt64() {
			want.SetInt64(math.MaxInt64)
		}
		if got := charge(n, Money(price), uint64(per)); int64(got) != want.Int64() {
			t.Fatalf("charge(%d, %d, %d) = %d, want %s", n, price, per, got, want)
		}
	})
}

func TestMoney(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]Money{"5": 5 * Dollar, "$0.25": 250_000, " 12.5 USD": 12_500_000, "0": 0, "0.000001": 1, "9223372036854.775807": math.MaxInt64} {
		if got, err := ParseMoney(in); err != nil || got != want {
			t.Errorf("ParseMoney(%q) = %d, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "-1", "1e3", "1,5", ".5", "5.", "0.0000001", "9223372036854.775808", "$", "5 EUR", "NaN", "+1"} {
		if got, err := ParseMoney(bad); err == nil {
			t.Errorf("ParseMoney(%q) = %d", bad, got)
		}
	}
	for m, want := range map[Money]string{
		0: "$0.0000", 1: "$0.0001", 100: "$0.0001", 101: "$0.0002", 999_999: "$1.0000", Dollar: "$1.00", Dollar + 1: "$1.01", 1_774 * Dollar: "$1774.00", -5 * Dollar: "-$5.00",
		math.MaxInt64: "$9223372036854.78", math.MinInt64: "-$9223372036854.78",
	} {
		if got := m.String(); got != want {
			t.Errorf("%d is %s, want %s", int64(m), got, want)
		}
	}
	if Money(math.MaxInt64).Plus(1) != math.MaxInt64 || Money(math.MinInt64).Plus(-1) != math.MinInt64 {
		t.Error("Plus overflows")
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	for stored, want := range map[int64]int64{-1: 35, 0: 35, 1: 35, tib: 35, pib: 35, pib + 1: 70, 3 * pib: 105, math.MaxInt64: 35 * 8192} {
		if got := Quota(stored); got.Requests != want || got.Per != day {
			t.Errorf("Quota(%d) = %s", stored, got)
		}
	}
	p := Quota(0)
	if p.At(0) != 0 || p.Over(1) != 0 || p.At(35) != day || p.Over(36) != day || p.At(7) != day/5 {
		t.Errorf("35 a day: %v, %v", p.At(35), p.At(7))
	}
	if !(Pace{}).Unlimited() || (Pace{}).Over(1e9) != 0 || (Pace{}).String() != "" {
		t.Error("the zero Pace has a limit")
	}
	if p.Slower(Pace{1, time.Hour}) != (Pace{1, time.Hour}) || (Pace{}).Slower(p) != p || p.Slower(Pace{}) != p {
		t.Error("Slower")
	}
	rapid.Check(t, func(t *rapid.T) {
		p := Pace{rapid.Int64Range(1, math.MaxInt64).Draw(t, "n"), time.Duration(rapid.Int64Range(1, math.MaxInt64).Draw(t, "per"))}
		i := rapid.Int64Range(0, math.MaxInt64-1).Draw(t, "i")
		if a, b := p.At(i), p.At(i+1); a < 0 || b < a {
			t.Fatalf("%s: number %d at %s, the next at %s", p, i, a, b)
		}
		q := Pace{p.Requests, rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour, day}).Draw(t, "unit")}
		if back, err := ParsePace(q.String()); err != nil || back != q {
			t.Fatalf("%s is read as %s, %v", q, back, err)
		}
	})
	for _, bad := range []string{"", "35", "/day", "0/day", "-1/s", "1.5/s", "1/week", "x/s"} {
		if p, err := ParsePace(bad); err == nil {
			t.Errorf("ParsePace(%q) = %s", bad, p)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	good := string(embedded)
	for what, edit := range map[string][2]string{
		"another key":        {`"currency"`, `"colour": "red", "currency"`},
		"another currency":   {`"USD"`, `"EUR"`},
		"no date":            {`2026-07-28"`, `July"`},
		"a negative price":   {`"0.0036"`, `"-0.0036"`},
		"a number":           {`"0.0036"`, `0.0036`},
		"too many digits":    {`"0.00099"`, `"0.0000001"`},
		"waits":              {`"from": "3h"`, `"from": "30h"`},
		"bands out of order": {`51200`, `5`},
		"no last band":       {`{"perGB": "0.05"}`, `{"upTo": 999999, "perGB": "0.05"}`},
		"an unknown class": {`"STANDARD": {
          "storage"`, `"TAPE": {
          "storage"`},
		"an unknown tier": {`"retrieve": {"":`, `"retrieve": {"Slow":`},
	} {
		text := strings.Replace(good, edit[0], edit[1], 1)
		if text == good {
			t.Fatalf("%s: nothing to replace", what)
		}
		if _, err := Parse(strings.NewReader(text)); err == nil || !strings.HasPrefix(err.Error(), "price table: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// The page shows the table's date, regions and prices.
func TestPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/reference/prices.md")
	if err != nil {
		t.Fatal(err)
	}
	tb := table(t)
	if !strings.Contains(string(page), tb.Date.Format(time.DateOnly)) {
		t.Error("the page does not name the table's date")
	}
	dollars := func(p price) string {
		s := fmt.Sprintf("%.6f", float64(p)/1e6)
		return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
	}
	for _, name := range tb.Regions() {
		for class, p := range tb.regions[name].Prices {
			for tier, r := range p.Retrieve {
				row := fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s |", name, class, dollars(p.Storage), dollars(p.Put), tier, dollars(r.PerGB), dollars(r.Per1000))
				if row = strings.ReplaceAll(row, "|  |", "| – |"); !strings.Contains(string(page), row) {
					t.Errorf("the page lacks\n%s", row)
				}
			}
		}
	}
}
