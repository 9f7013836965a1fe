package plan

import (
	"fmt"
	"strings"
	"time"
)

// Presets are the names that Preset knows.
func Presets() []string { return []string{"btrsend"} }

// Preset is a policy under its name. "btrsend" has the constants of the program of that name: days 1, 7, 14 and 21 of the month,
// missed ones not caught up, a full snapshot and eleven incrementals, chains gone after 90 days.
func Preset(name string) (Policy, error) {
	switch name {
	case "btrsend":
		return Policy{
			Schedule:     Schedule{text: "monthdays 1,7,14,21", days: []int{1, 7, 14, 21}},
			Incrementals: 11,
			Retention:    Retention{Expire: 90 * 24 * time.Hour},
			ByDate:       true,
		}, nil
	}
	return Policy{}, fmt.Errorf("there is no policy %q (there is %s)", name, strings.Join(Presets(), ", "))
}
