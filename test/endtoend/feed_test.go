package endtoend_test

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// feed gives the answers of the original program day by day, through the real binary, and as many snapshots are in force after each of them.
func TestFeedOracle(t *testing.T) {
	t.Parallel()
	days := 60
	if os.Getenv("FIRN_SOAK") == "1" {
		days = 1096
	}
	file, err := os.Open(filepath.Join("..", "..", "internal", "plan", "testdata", "btrsend-oracle.csv"))
	must(t, err)
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	must(t, err)
	m := newMachine(t, memory(t))
	m.config("[set.home]\nkind = \"stream\"\npolicy = \"btrsend\"\n")
	for i, row := range rows[1 : days+1] {
		day, kind, base, active := row[0], row[1], row[2], row[5]
		m.now = day + "T00:00:05Z"
		cmd := m.command(t.Context(), "feed", "home", day)
		cmd.Stdin = strings.NewReader("what there was on " + day)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", day, err)
		}
		want := map[string]string{"none": "", "c": "c\n", "i": "i " + base + "\n"}[kind]
		if string(out) != want {
			t.Fatalf("%s: answered %q and not %q", day, out, want)
		}
		if kind != "none" || i%30 == 0 {
			if got := fmt.Sprint(len(m.listed("home"))); got != active {
				t.Fatalf("%s: %s snapshots in force and not %s", day, got, active)
			}
		}
	}
}
