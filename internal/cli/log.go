package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/units"
)

func newLog(c *command) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:         "log [RUN | SET]",
		Annotations: lists(),
		Short:       "List runs, or show the lines of one",
		Long: `List what ran, newest first: all of it, or what concerned a set. With the id of a
run, show the lines that it wrote. They are kept in the state directory.`,
		Example: example("firn log", "firn log Documents", "firn log 01JD8ZQ4T1ABCDEFGHJKMNPQRS"),
		Args:    args(0, 1, "a run or a set at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := c.open(cmd)
			if err != nil {
				return err
			}
			if limit < 1 {
				return usage("--limit: must be at least 1")
			}
			if len(args) == 1 && snapshot.ValidID(strings.ToUpper(args[0])) {
				if _, err := a.FindSet(cmd.Context(), args[0]); err != nil { // not a set's id
					return c.showRun(a, strings.ToUpper(args[0]))
				}
			}
			set := ""
			if len(args) == 1 {
				s, err := a.FindSet(cmd.Context(), args[0])
				if errors.Is(err, app.ErrNoSet) {
					return withHint(failure.Errorf(failure.NotFound, "%s: no such run, and %w", args[0], app.ErrNoSet), "firn log lists the runs, firn snapshots the sets")
				}
				if err != nil {
					return err
				}
				set = s.Name
			}
			return c.listRuns(cmd.Context(), a, set, limit)
		},
	}
	cmd.Flags().IntVarP(&limit, "limit", "n", 50, "list at most so many")
	return cmd
}

func (c *command) showRun(a *app.App, id string) error {
	f, err := a.OpenRunLog(id)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("read log of run %s: %w", id, err)
	}
	if c.json {
		return c.document(struct {
			Run   string   `json:"run"`
			Lines []string `json:"lines"`
		}{id, strings.Split(strings.TrimRight(string(text), "\n"), "\n")})
	}
	for line := range strings.Lines(string(text)) {
		c.printf("%s\n", clean(strings.TrimRight(line, "\n")))
	}
	return nil
}

type jsonRun struct {
	Run     string  `json:"run"`
	Command string  `json:"command"`
	Set     string  `json:"set,omitempty"`
	Started *string `json:"started"`
	Ended   *string `json:"ended,omitempty"`
	Exit    *int    `json:"exit,omitempty"`
	Summary string  `json:"summary,omitempty"`
}

func runJSON(r catalog.Run) jsonRun {
	j := jsonRun{Run: r.ID, Command: r.Command, Set: r.Set, Started: stampJSON(r.Started), Ended: stampJSON(r.Ended), Summary: r.Summary}
	if !r.Ended.IsZero() {
		j.Exit = &r.Exit
	}
	return j
}

func (c *command) listRuns(ctx context.Context, a *app.App, set string, limit int) error {
	list := []jsonRun{}
	t := newTable("STARTED", ">TOOK", "COMMAND", "SET", ">EXIT", "RUN", "SUMMARY")
	db, err := a.Catalog(ctx, false)
	if err != nil && !noCatalog(err) {
		return err
	}
	if err == nil {
		runs, err := db.Runs(ctx, set, limit)
		if err != nil {
			return err
		}
		for _, r := range runs {
			j := runJSON(r)
			took, exit := "-", "-" // running, or killed
			if !r.Ended.IsZero() {
				took, exit = units.Clock(r.Ended.Sub(r.Started).Round(time.Second)), strconv.Itoa(r.Exit)
			}
			list = append(list, j)
			t.row(c.stamp(r.Started), took, r.Command, clean(r.Set), exit, r.ID, clean(r.Summary))
		}
	}
	switch {
	case c.json:
		return c.document(list)
	case len(list) == 0:
		c.talk("no runs yet")
	default:
		t.print(c.output)
	}
	return nil
}
