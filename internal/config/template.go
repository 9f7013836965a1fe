package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// The URL of a vault may be a template: its placeholders stand for parts of the date that a backup is
// made on, so that every month, say, has a vault of its own.

// placeholders of a vault's URL, and what they stand for.
func placeholders() map[string]func(t time.Time) string {
	return map[string]func(t time.Time) string{
		"{year}":  func(t time.Time) string { return t.Format("2006") },
		"{month}": func(t time.Time) string { return t.Format("01") },
		"{day}":   func(t time.Time) string { return t.Format("02") },
		"{week}": func(t time.Time) string { // of ISO 8601; its year may be another than the day's
			_, w := t.ISOWeek()
			return fmt.Sprintf("%02d", w)
		},
		"{week-year}": func(t time.Time) string {
			y, _ := t.ISOWeek()
			return fmt.Sprintf("%04d", y)
		},
	}
}

// IsTemplate says whether the vault's URL has placeholders: there is one vault for each period then.
func (v *Vault) IsTemplate() bool { return strings.ContainsAny(v.URL, "{}") }

// URLAt is the URL of the vault of a time, in that time's zone; not yet in the one form. Of a vault
// without placeholders it is the URL.
func (v *Vault) URLAt(t time.Time) string {
	url := v.URL
	for name, of := range placeholders() {
		url = strings.ReplaceAll(url, name, of(t))
	}
	return url
}

// Glob is a pattern of filepath.Match that fits the directories of all periods, dir being that of URLAt of any
// URL with placeholders replaced by stars.
func (v *Vault) Glob(dir func(url string) string) string {
	const mark = "firnplaceholder"
	url := v.URL
	for name := range placeholders() {
		url = strings.ReplaceAll(url, name, mark)
	}
	escaped := regexp.MustCompile(`[*?\[\\]`).ReplaceAllString(dir(url), `\$0`)
	return filepath.Clean(strings.ReplaceAll(escaped, mark, "*"))
}

// checkTemplate says what is wrong with a template.
func (v *Vault) checkTemplate() error {
	rest := v.URL
	for name := range placeholders() {
		rest = strings.ReplaceAll(rest, name, "")
	}
	if strings.ContainsAny(rest, "{}") {
		return fmt.Errorf("its placeholders are {year}, {month}, {day}, {week} and {week-year}")
	}
	has := func(name string) bool { return strings.Contains(v.URL, name) }
	switch {
	// Otherwise a vault would be met again a year, or a month, later, and its archives taken for new ones.
	case has("{week}") != has("{week-year}"):
		return fmt.Errorf("{week} and {week-year} belong together: weeks have years of their own")
	case has("{month}") && !has("{year}"):
		return fmt.Errorf("{month} needs {year} beside it")
	case has("{day}") && !(has("{month}") && has("{year}")):
		return fmt.Errorf("{day} needs {year} and {month} beside it")
	}
	return nil
}
