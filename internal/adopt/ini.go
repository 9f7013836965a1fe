package adopt

import (
	"fmt"
	"slices"
	"strings"

	"github.com/firn-backup/firn/internal/failure"
)

// ini is a file as Python's ConfigParser reads it, by which the older tools read theirs: "=" and ":" separate,
// keys are lower-cased, lines that are indented go on with the value above, comments are lines of their own, quotes are
// ordinary characters, [DEFAULT] goes for all sections, and %(key)s stands for another value.
// https://docs.python.org/3/library/configparser.html#supported-ini-file-structure
type ini struct {
	sections []string // in the order of the file, without DEFAULT
	values   map[string]map[string]string
	keys     map[string][]string
}

const iniDefault = "DEFAULT"

// parseINI reads text. Errors name the line and are of kind failure.Usage.
func parseINI(text string) (*ini, error) {
	f := &ini{values: map[string]map[string]string{}, keys: map[string][]string{}}
	section, key, indent := "", "", 0
	for n, line := range strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n") {
		line = strings.TrimRight(line, " \t\r\v\f")
		body := strings.TrimLeft(line, " \t\v\f")
		if body == "" || body[0] == '#' || body[0] == ';' {
			continue
		}
		at := len(line) - len(body)
		if key != "" && at > indent {
			f.values[section][key] += "\n" + body
			continue
		}
		fail := func(format string, args ...any) error {
			return failure.Errorf(failure.Usage, "line %d: %s", n+1, fmt.Sprintf(format, args...))
		}
		if end := strings.LastIndexByte(body, ']'); body[0] == '[' && end > 1 {
			section, key = body[1:end], ""
			if f.values[section] != nil && section != iniDefault {
				return nil, fail("section [%s] is there twice", section)
			}
			if f.values[section] == nil {
				f.values[section] = map[string]string{}
			}
			if section != iniDefault {
				f.sections = append(f.sections, section)
			}
			continue
		}
		i := strings.IndexAny(body, "=:")
		if section == "" || i <= 0 {
			return nil, fail("neither a section nor KEY = VALUE")
		}
		indent = at
		key = strings.ToLower(strings.TrimRight(body[:i], " \t"))
		if slices.Contains(f.keys[section], key) {
			return nil, fail("%s is there twice in [%s]", key, section)
		}
		f.keys[section] = append(f.keys[section], key)
		f.values[section][key] = strings.TrimLeft(body[i+1:], " \t")
	}
	return f, nil
}

// has says whether there is such a section.
func (f *ini) has(section string) bool { return f.values[section] != nil && section != iniDefault }

// get is a value as it is written; ok is false where there is none.
func (f *ini) get(section, key string) (string, bool) {
	if v, ok := f.values[section][key]; ok {
		return v, true
	}
	v, ok := f.values[iniDefault][key]
	return v, ok && f.values[section] != nil
}

// maxInterpolation is how deep values may stand for one another, as in Python.
const maxInterpolation = 10

// value is a value with what stands for others put in.
func (f *ini) value(section, key string) (string, bool, error) {
	raw, ok := f.get(section, key)
	if !ok {
		return "", false, nil
	}
	v, err := f.interpolate(section, key, raw, maxInterpolation)
	return v, true, err
}

// maxValue is how long a value may grow, in bytes: ten values of many references each would fill any memory.
const maxValue = 64 << 10

func (f *ini) interpolate(section, key, raw string, depth int) (string, error) {
	if !strings.Contains(raw, "%") {
		return raw, nil
	}
	bad := func(why string) (string, error) {
		return "", failure.Errorf(failure.Usage, "[%s] %s: %s", section, key, why)
	}
	if depth == 0 {
		return bad("values stand for one another without end")
	}
	var b strings.Builder
	for {
		text, rest, found := strings.Cut(raw, "%")
		b.WriteString(text)
		if b.Len() > maxValue {
			return bad("the value is too long")
		}
		if !found {
			return b.String(), nil
		}
		if after, ok := strings.CutPrefix(rest, "%"); ok {
			b.WriteByte('%')
			raw = after
			continue
		}
		name, after, ok := strings.Cut(rest, ")s")
		name, opened := strings.CutPrefix(name, "(")
		if !ok || !opened {
			return bad("% must be followed by % or (NAME)s")
		}
		other, ok := f.get(section, strings.ToLower(name))
		if !ok {
			return bad("%(" + name + ")s stands for nothing")
		}
		v, err := f.interpolate(section, key, other, depth-1)
		if err != nil {
			return "", err
		}
		b.WriteString(v)
		raw = after
	}
}

// flag is a value that is yes or no; no where there is none.
func (f *ini) flag(section, key string) (bool, error) {
	v, ok, err := f.value(section, key)
	if err != nil || !ok {
		return false, err
	}
	switch strings.ToLower(v) {
	case "1", "yes", "true", "on":
		return true, nil
	case "0", "no", "false", "off":
		return false, nil
	}
	return false, failure.Errorf(failure.Usage, "[%s] %s: %q is neither yes nor no", section, key, v)
}

// set replaces a value of an existing section.
func (f *ini) set(section, key, value string) { f.values[section][key] = value }
