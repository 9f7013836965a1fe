package cli

import (
	"encoding/csv"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/failure"
)

// The forms that --format knows.
const (
	formatTable = "table"
	formatCSV   = "csv"
	formatJSON  = "json"
)

// listsNote marks commands whose JSON is a list of objects: those that can be printed as CSV too.
const listsNote = "firn-lists"

func lists() map[string]string { return map[string]string{listsNote: "true"} }

// setFormat makes of --format what --json is. CSV has the fields of JSON, a column each.
func (c *command) setFormat(cmd *cobra.Command) error {
	switch c.global.format {
	case "":
	case formatTable:
		if c.json {
			return usage("--json and --format table contradict each other")
		}
	case formatJSON:
		c.json = true
	case formatCSV:
		if c.json {
			return usage("--json and --format csv contradict each other")
		}
		if cmd.Annotations[listsNote] == "" {
			return withHint(usage("%s has no CSV: that is for lists", cmd.CommandPath()), "--format json has it all")
		}
		c.json, c.csv = true, true
	default:
		return usage("--format %s: must be table, csv or json", c.global.format)
	}
	return nil
}

// csvColumn is a field of a JSON object.
type csvColumn struct {
	name string
	at   []int
}

// csvColumns are the fields of a struct as encoding/json names them, embedded ones included.
func csvColumns(t reflect.Type) []csvColumn {
	var cols []csvColumn
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" || name == "-" || !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		cols = append(cols, csvColumn{name, f.Index})
	}
	return cols
}

// csvRecord writes one line, as RFC 4180 has it but for the end of lines, which is that of texts here.
func (o *output) csvRecord(cells []string) error {
	var b strings.Builder
	w := csv.NewWriter(&b)
	if err := w.Write(cells); err != nil {
		return err
	}
	w.Flush()
	o.printf("%s", b.String())
	return o.failure()
}

func (o *output) csvHeader(t reflect.Type) error {
	var names []string
	for _, c := range csvColumns(t) {
		names = append(names, c.name)
	}
	return o.csvRecord(names)
}

// csvRow writes an object. What is not text or a number is in its cell as JSON.
func (o *output) csvRow(v reflect.Value) error {
	v = reflect.Indirect(v)
	var cells []string
	for _, col := range csvColumns(v.Type()) {
		f, err := v.FieldByIndexErr(col.at)
		if err != nil { // of an embedded object that is not there
			cells = append(cells, "")
			continue
		}
		text, err := marshal(f.Interface(), "")
		if err != nil {
			return err
		}
		if strings.HasPrefix(text, `"`) {
			var s string
			if err := json.Unmarshal([]byte(text), &s); err != nil {
				return err
			}
			text = clean(s)
		}
		if text == "null" {
			text = ""
		}
		cells = append(cells, text)
	}
	return o.csvRecord(cells)
}

// csvDocument writes a list of objects, or one.
func (o *output) csvDocument(v any) error {
	val := reflect.Indirect(reflect.ValueOf(v))
	switch {
	case val.Kind() == reflect.Struct:
		if err := o.csvHeader(val.Type()); err != nil {
			return err
		}
		return o.csvRow(val)
	case val.Kind() == reflect.Slice && val.Type().Elem().Kind() == reflect.Struct:
		if err := o.csvHeader(val.Type().Elem()); err != nil {
			return err
		}
		for i := range val.Len() {
			if err := o.csvRow(val.Index(i)); err != nil {
				return err
			}
		}
		return nil
	}
	return failure.Errorf(failure.Usage, "this has no CSV: --format json has it")
}
