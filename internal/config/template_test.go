package config

import (
	"strings"
	"testing"
	"time"
)

func TestTemplates(t *testing.T) {
	t.Parallel()
	c, err := parse(t, `
[vault.months]
url = "dir:/mnt/nas/timemachine-{year}-{month}"
[vault.weeks]
url = "dir:~/w{week-year}.{week}"
[vault.plain]
url = "dir:/mnt/x"
`)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []struct{ vault, date, url string }{
		{"months", "2026-11-30T23:59:59+01:00", "dir:/mnt/nas/timemachine-2026-11"},
		{"months", "2027-01-01T00:00:00+01:00", "dir:/mnt/nas/timemachine-2027-01"},
		{"weeks", "2027-01-01T00:00:00Z", "dir:/home/me/w2026.53"},
		{"weeks", "2024-12-30T00:00:00Z", "dir:/home/me/w2025.01"},
		{"plain", "2024-12-30T00:00:00Z", "dir:/mnt/x"},
	} {
		at, err := time.Parse(time.RFC3339, w.date)
		if err != nil {
			t.Fatal(err)
		}
		v := c.Vaults[w.vault]
		if got := v.URLAt(at); got != w.url || v.IsTemplate() != (w.vault != "plain") {
			t.Errorf("%+v: %s", w, got)
		}
	}
	dir := func(url string) string { return strings.TrimPrefix(url, "dir:") }
	if g := c.Vaults["months"].Glob(dir); g != "/mnt/nas/timemachine-*-*" {
		t.Error(g)
	}
	for url, want := range map[string]string{
		"dir:/x-{yaer}":          "its placeholders are",
		"dir:/x-{year":           "its placeholders are",
		"dir:/x-{month}":         "{month} needs {year}",
		"dir:/x-{year}-{day}":    "{day} needs {year} and {month}",
		"dir:/x-{year}-{week}":   "belong together",
		"dir:/x-{week-year}":     "belong together",
		"tape:/x-{year}-{month}": "no such kind of vault",
	} {
		if _, err := parse(t, "[vault.v]\nurl = \""+url+"\"\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", url, err)
		}
	}
}
