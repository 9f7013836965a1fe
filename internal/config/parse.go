package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/firn-backup/firn/internal/plan"
	"github.com/firn-backup/firn/internal/units"
)

// parser goes from bytes to a bound Config and gathers what is wrong.
type parser struct {
	Options
	file   string
	lines  map[string]int // dotted key, or key[index], to line
	faults []Fault
}

func (p *parser) fault(key, format string, args ...any) {
	p.faults = append(p.faults, Fault{Line: p.line(key), Key: key, Text: fmt.Sprintf(format, args...)})
}

// line is where key stands, or the nearest thing around it.
func (p *parser) line(key string) int {
	for {
		if n, ok := p.lines[key]; ok {
			return n
		}
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			return 0
		}
		key = key[:i]
	}
}

// read parses TOML, and finds the lines. Errors of syntax end it: what follows
// one cannot be understood.
func (p *parser) read(data []byte) (map[string]any, bool) {
	tree := map[string]any{}
	if err := toml.Unmarshal(data, &tree); err != nil {
		f := Fault{Text: strings.TrimPrefix(err.Error(), "toml: ")}
		if de := (*toml.DecodeError)(nil); errors.As(err, &de) {
			f.Line, _ = de.Position()
		}
		p.faults = append(p.faults, f)
		return nil, false
	}
	var up unstable.Parser
	up.Reset(data)
	table := ""
	for up.NextExpression() {
		n := up.Expression()
		switch n.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = p.note(&up, n, "")
		case unstable.KeyValue:
			p.noteValue(&up, n, table)
		}
	}
	return tree, true
}

// note records the line of a (dotted) key below a table, and returns the whole key.
func (p *parser) note(up *unstable.Parser, n *unstable.Node, table string) string {
	key := table
	for it := n.Key(); it.Next(); {
		k := it.Node()
		if key != "" {
			key += "."
		}
		key += string(k.Data)
		if _, ok := p.lines[key]; !ok || it.IsLast() {
			p.lines[key] = up.Shape(k.Raw).Start.Line
		}
	}
	return key
}

func (p *parser) noteValue(up *unstable.Parser, n *unstable.Node, table string) {
	key := p.note(up, n, table)
	switch v := n.Value(); v.Kind {
	case unstable.InlineTable:
		for it := v.Children(); it.Next(); {
			p.noteValue(up, it.Node(), key)
		}
	case unstable.Array:
		i := 0
		for it := v.Children(); it.Next(); i++ {
			if raw := it.Node().Raw; raw.Length > 0 {
				p.lines[fmt.Sprintf("%s[%d]", key, i)] = up.Shape(raw).Start.Line
			}
		}
	}
}

// bindTop fills c from the tree.
func (p *parser) bindTop(c *Config, tree map[string]any) {
	c.Vaults = map[string]*Vault{}
	c.Sets = map[string]*Set{}
	c.Notifications = map[string]*Notify{}
	sections := p.bind("", "", reflect.ValueOf(c).Elem(), tree)
	for _, section := range slices.Sorted(maps.Keys(sections)) {
		all, ok := sections[section].(map[string]any)
		if !ok {
			p.fault(section, "must be sections, [%s.NAME], not %s", section, typeName(sections[section]))
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(all)) {
			key := section + "." + name
			one, ok := all[name].(map[string]any)
			if !ok {
				p.fault(key, "must be a section, [%s], not %s", key, typeName(all[name]))
				continue
			}
			if why := badName(name); why != "" {
				p.fault(key, "the name %s", why)
			}
			switch section {
			case "vault":
				v := &Vault{Name: name, Line: p.line(key)}
				c.Vaults[name] = v
				p.bind(key, section, reflect.ValueOf(v).Elem(), one)
			case "notify":
				n := &Notify{Name: name, Line: p.line(key)}
				c.Notifications[name] = n
				p.bind(key, section, reflect.ValueOf(n).Elem(), one)
			default:
				s := &Set{Name: name, Line: p.line(key)}
				c.Sets[name] = s
				p.bind(key, section, reflect.ValueOf(s).Elem(), one)
			}
		}
	}
}

// bind fills the fields of a struct from a table, and returns what belongs to
// its fields that are maps of sections.
func (p *parser) bind(prefix, section string, dst reflect.Value, table map[string]any) map[string]any {
	sections := map[string]any{}
	for _, k := range slices.Sorted(maps.Keys(table)) {
		key := k
		if prefix != "" {
			key = prefix + "." + k
		}
		field, ok := fieldOf(dst, k)
		switch {
		case ok && field.Kind() == reflect.Map:
			sections[k] = table[k]
		case ok:
			if want := assign(field, table[k]); want != "" {
				p.fault(key, "must be %s, not %s", want, typeName(table[k]))
			}
		case slices.Contains(later(section), k):
			p.fault(key, "not supported by this version yet; take it out")
		default:
			p.fault(key, "unknown key%s", didYouMean(k, keysOf(dst.Type())))
		}
	}
	return sections
}

// fieldOf is the field of a key, in the struct itself or in one that is embedded.
func fieldOf(dst reflect.Value, key string) (reflect.Value, bool) {
	for i := range dst.NumField() {
		f := dst.Type().Field(i)
		if f.Anonymous {
			if v, ok := fieldOf(dst.Field(i), key); ok {
				return v, true
			}
		} else if tag := f.Tag.Get("toml"); tag == key && tag != "-" {
			return dst.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		if f := t.Field(i); f.Anonymous {
			keys = append(keys, keysOf(f.Type)...)
		} else if tag := f.Tag.Get("toml"); tag != "-" {
			keys = append(keys, tag)
		}
	}
	return keys
}

// assign sets a field, and returns what would have been wanted if it cannot.
func assign(f reflect.Value, v any) (want string) {
	switch dst := f.Addr().Interface().(type) {
	case *string:
		s, ok := v.(string)
		*dst = s
		return unless(ok, "a string")
	case **string:
		s, ok := v.(string)
		*dst = &s
		return unless(ok, "a string")
	case *bool:
		b, ok := v.(bool)
		*dst = b
		return unless(ok, "true or false")
	case **bool:
		b, ok := v.(bool)
		*dst = &b
		return unless(ok, "true or false")
	case *time.Duration:
		text, ok := v.(string)
		d, err := units.ParseDuration(text)
		*dst = d
		return unless(ok && err == nil, "a duration such as \"180d\" or \"12h\"")
	case *plan.Schedule:
		return assignSchedule(dst, v)
	case **int:
		n, ok := v.(int64)
		ok = ok && n >= 0 && n <= math.MaxInt32
		i := int(n)
		*dst = &i
		return unless(ok, "a number, 0 or more")
	case *int64: // a size
		switch x := v.(type) {
		case int64:
			*dst = x
			return unless(x > 0, "a size above 0")
		case string:
			n, err := units.ParseSize(x)
			*dst = n
			return unless(err == nil && n > 0, "a size such as \"64MiB\" or \"1 GiB\"")
		}
		return "a size such as \"64MiB\" or a number of bytes"
	case *DayRates:
		texts := []string{}
		if s, ok := v.(string); ok {
			texts = append(texts, s)
		} else if want := assign(reflect.ValueOf(&texts).Elem(), v); want != "" {
			return dayRatesWanted
		}
		rates, err := units.ParseDayRates(texts)
		*dst = rates
		return unless(err == nil, dayRatesWanted)
	case *[]string:
		list, ok := v.([]any)
		for _, x := range list {
			s, isString := x.(string)
			ok = ok && isString
			*dst = append(*dst, s)
		}
		return unless(ok, "a list of strings, [\"…\", \"…\"]")
	}
	panic("config: field of type " + f.Type().String()) // a mistake in Config, found by any test
}

const dayRatesWanted = "a rate such as \"2MiB/s\", or a list such as [\"08:00-18:00 500KiB\", \"18:00-08:00 0\"]"

func unless(ok bool, want string) string {
	if ok {
		return ""
	}
	return want
}

func typeName(v any) string {
	switch x := v.(type) {
	case string:
		return "the string " + strconv.Quote(x)
	case int64:
		return "the number " + strconv.FormatInt(x, 10)
	case float64:
		return "the number " + strconv.FormatFloat(x, 'g', -1, 64)
	case bool:
		return strconv.FormatBool(x)
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	}
	return "a date or time"
}

// didYouMean names the key that a mistyped one is nearest to.
func didYouMean(k string, keys []string) string {
	best, at := "", 3
	for _, c := range keys {
		norm := strings.ReplaceAll(strings.ToLower(k), "_", "-")
		if d := distance(norm, c); d < at && d < len(c) {
			best, at = c, d
		}
	}
	if best == "" {
		return ""
	}
	return " (did you mean " + best + "?)"
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
