package config

import (
	"reflect"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/units"
)

func TestLimitRate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]DayRates{
		`"2MiB/s"`: {{Rate: 2 << 20}},
		`["08:00-18:00 500KiB", "18:00-08:00 0"]`: {{From: 480, To: 1080, Rate: 500 << 10}, {From: 1080, To: 480}},
		`"0"`: nil, `[]`: nil,
	} {
		c, err := Parse("f.toml", []byte("limit-rate = "+text), Options{})
		if err != nil || !reflect.DeepEqual([]units.DayRate(c.LimitRate), []units.DayRate(want)) {
			t.Errorf("%s: %+v, %v", text, c, err)
		}
	}
	for _, text := range []string{`5`, `"fast"`, `["8-18 1MiB"]`, `[1]`, `true`} {
		_, err := Parse("f.toml", []byte("\nlimit-rate = "+text), Options{})
		if err == nil || !strings.Contains(err.Error(), "f.toml:2: limit-rate: must be a rate") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
