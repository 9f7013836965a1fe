package cli

import (
	"reflect"
	"strings"
)

// jsonFields are the names of a struct's fields in JSON, those of embedded
// structs included.
func jsonFields(v any) []string {
	var names []string
	t := reflect.TypeOf(v)
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case tag != "":
			names = append(names, tag)
		case f.Anonymous && f.Type.Kind() == reflect.Pointer:
			names = append(names, jsonFields(reflect.Zero(f.Type.Elem()).Interface())...)
		case f.Anonymous:
			names = append(names, jsonFields(reflect.Zero(f.Type).Interface())...)
		}
	}
	return names
}
