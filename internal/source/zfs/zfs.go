// Package zfs is the source of ZFS snapshots, sent by zfs send, and their way back
// by zfs receive. It makes snapshots of a dataset, or takes those that others make,
// and removes its own ones only. What the zfs at hand cannot do, an old one has
// neither holds nor bookmarks, is done without.
package zfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/sendstream"
	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/source/process"
)

// Options say what to send. Dataset and Set are needed.
type Options struct {
	Dataset       string
	Recursive     bool // with all that is below it (send -R)
	Raw           bool // as it lies on the disk, encrypted data without its key (send -w)
	Intermediates bool // an incremental brings the snapshots in between too (send -I)

	Existing bool     // send snapshots that others make
	Match    []string // glob patterns, one of which their names behind the @ must fit; empty: all

	Set     string // the set's id: names own snapshots and holds
	Program string // empty: zfs
}

// Source is a dataset. It is for one goroutine.
type Source struct {
	o   Options
	can *abilities
}

var _ source.Stream = (*Source)(nil)

// abilities are what the zfs at hand can do.
type abilities struct{ hold, bookmark, raw bool }

// New makes a source. Nothing is looked at before it is used.
func New(o Options) (*Source, error) {
	if o.Program == "" {
		o.Program = "zfs"
	}
	if err := CheckDataset(o.Dataset); err != nil {
		return nil, err
	}
	for _, m := range o.Match {
		if _, err := path.Match(m, ""); err != nil {
			return nil, fmt.Errorf("pattern %q: %w", m, err)
		}
	}
	return &Source{o: o}, nil
}

// CheckDataset says what is wrong with the name of a dataset: one that zfs could take for something else is none.
func CheckDataset(name string) error {
	bad := strings.ContainsFunc(name, func(r rune) bool {
		return r != '/' && r != ' ' && !strings.ContainsRune("-_.:", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
	if name == "" || bad || strings.HasPrefix(name, "-") || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") {
		return fmt.Errorf("%q is not the name of a ZFS dataset", name)
	}
	return nil
}

// Traits says that its points can be built on.
func (s *Source) Traits() source.StreamTraits {
	return source.StreamTraits{Format: sendstream.ZFS, Points: true, Again: true}
}

func (s *Source) run(ctx context.Context, args ...string) (string, error) {
	return process.Run(ctx, s.o.Program+" "+args[0], append([]string{s.o.Program}, args...)...)
}

// abilities asks zfs for its usage, once. That it exits with a status of its own does not matter.
func (s *Source) abilities(ctx context.Context) (abilities, error) {
	if s.can != nil {
		return *s.can, nil
	}
	text, err := process.Usage(ctx, s.o.Program)
	if err != nil {
		return abilities{}, err
	}
	a := abilities{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "hold":
			a.hold = true
		case "bookmark":
			a.bookmark = true
		case "send":
			a.raw = a.raw || strings.Contains(f[1], "w")
		}
	}
	s.can = &a
	return a, nil
}

// prefix begins the names of this set's own snapshots and bookmarks.
func (s *Source) prefix() string { return "firn-" + s.o.Set + "-" }

// tag is that of this set's holds.
func (s *Source) tag() string { return "firn:" + s.o.Set }

// split takes the name of a snapshot or bookmark of the dataset apart.
func (s *Source) split(name string) (sep byte, short string, ok bool) {
	rest, ok := strings.CutPrefix(name, s.o.Dataset)
	if !ok || len(rest) < 2 || rest[0] != '@' && rest[0] != '#' {
		return 0, "", false
	}
	return rest[0], rest[1:], true
}

func (s *Source) own(short string) bool { return strings.HasPrefix(short, s.prefix()) }

// meant says that a snapshot is one to be sent or built on.
func (s *Source) meant(short string) bool {
	if !s.o.Existing {
		return s.own(short)
	}
	if strings.HasPrefix(short, "firn-") { // of other sets
		return false
	}
	return len(s.o.Match) == 0 || slices.ContainsFunc(s.o.Match, func(m string) bool { ok, _ := path.Match(m, short); return ok })
}

// Points lists the dataset's snapshots that are meant, and bookmarks of such.
func (s *Source) Points(ctx context.Context) ([]source.Point, error) {
	out, err := s.run(ctx, "get", "-Hp", "-d", "1", "-o", "name,property,value", "creation,guid,userrefs", s.o.Dataset)
	if err != nil {
		return nil, err
	}
	var list []source.Point
	at := map[string]int{}
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(f) != 3 {
			return nil, fmt.Errorf("%s get: a line that is not understood: %q", s.o.Program, line)
		}
		sep, short, ok := s.split(f[0])
		if !ok || sep == '@' && !s.meant(short) || sep == '#' && !s.own(short) {
			continue
		}
		i, known := at[f[0]]
		if !known {
			i = len(list)
			at[f[0]] = i
			list = append(list, source.Point{Name: f[0], Own: s.own(short), BaseOnly: sep == '#'})
		}
		if err := fill(&list[i], f[1], f[2]); err != nil {
			return nil, fmt.Errorf("%s get: %s: %w", s.o.Program, f[0], err)
		}
	}
	for i := range list { // by the clock that the set goes by, not the pool's
		_, short, _ := s.split(list[i].Name)
		if at, ok := source.OwnTime(s.prefix(), short); ok {
			list[i].At = at
		}
	}
	slices.SortStableFunc(list, func(a, b source.Point) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(boolInt(b.BaseOnly), boolInt(a.BaseOnly)))
	})
	return list, nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// fill takes one property up.
func fill(p *source.Point, property, value string) error {
	if property == "userrefs" {
		p.Held = value != "0" && value != "-"
		return nil
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return fmt.Errorf("%s is %q", property, value)
	}
	if property == "guid" {
		p.ID = value
	} else {
		p.At = time.Unix(int64(n), 0).UTC()
	}
	return nil
}

// Make makes a snapshot and holds it, or finds the newest existing one and holds that.
func (s *Source) Make(ctx context.Context, at time.Time) (source.Point, error) {
	if s.o.Existing {
		points, err := s.Points(ctx)
		if err != nil {
			return source.Point{}, err
		}
		points = slices.DeleteFunc(points, func(p source.Point) bool { return p.BaseOnly })
		if len(points) == 0 {
			return source.Point{}, fmt.Errorf("dataset %s: %w", s.o.Dataset, source.ErrNoPoint)
		}
		p := points[len(points)-1]
		return p, s.hold(ctx, p)
	}
	full := s.o.Dataset + "@" + source.OwnName(s.prefix(), at)
	if _, err := s.run(ctx, s.deep("snapshot", full)...); err != nil {
		return source.Point{}, err
	}
	points, err := s.Points(ctx)
	if err != nil {
		return source.Point{}, err
	}
	i := slices.IndexFunc(points, func(p source.Point) bool { return p.Name == full })
	if i < 0 {
		return source.Point{}, fmt.Errorf("snapshot %s was made and is not there", full)
	}
	return points[i], s.hold(ctx, points[i])
}

// deep is a command with -r where the whole tree of datasets is meant.
func (s *Source) deep(command string, args ...string) []string {
	if s.o.Recursive {
		return append([]string{command, "-r"}, args...)
	}
	return append([]string{command}, args...)
}

// hold sees to it that nobody destroys a snapshot. One that is held already is.
func (s *Source) hold(ctx context.Context, p source.Point) error {
	can, err := s.abilities(ctx)
	if err != nil || !can.hold {
		return err
	}
	_, err = s.run(ctx, s.deep("hold", s.tag(), p.Name)...)
	if err != nil && strings.Contains(err.Error(), "tag already exists") {
		return nil
	}
	return err
}

// release lets go of a snapshot. What it was not held by is not asked: another program's holds stay.
func (s *Source) release(ctx context.Context, p source.Point) error {
	can, err := s.abilities(ctx)
	if err != nil || !can.hold || p.BaseOnly {
		return err
	}
	_, err = s.run(ctx, s.deep("release", s.tag(), p.Name)...)
	if err != nil && (strings.Contains(err.Error(), "no such tag") || gone(err)) {
		return nil
	}
	return err
}

// gone says that an error is that of something which is not there.
func gone(err error) bool {
	return strings.Contains(err.Error(), "does not exist") || strings.Contains(err.Error(), "could not find any snapshots")
}

// Open runs zfs send.
func (s *Source) Open(ctx context.Context, p source.Point, base *source.Point) (io.ReadCloser, error) {
	if p.BaseOnly {
		return nil, fmt.Errorf("%s is a bookmark: it cannot be sent", p.Name)
	}
	argv := []string{s.o.Program, "send"}
	if s.o.Recursive {
		argv = append(argv, "-R")
	}
	if s.o.Raw {
		can, err := s.abilities(ctx)
		if err != nil {
			return nil, err
		}
		if !can.raw {
			return nil, errors.New("this zfs cannot send raw streams (send -w)")
		}
		argv = append(argv, "-w")
	}
	if base != nil {
		how := "-i"
		if s.o.Intermediates && !base.BaseOnly {
			how = "-I"
		}
		argv = append(argv, how, base.Name)
	}
	return process.Start(ctx, s.o.Program+" send", append(argv, p.Name)...)
}

// bookmark is the name of the bookmark of a snapshot.
func (s *Source) bookmark(p source.Point) string {
	_, short, _ := s.split(p.Name)
	return s.o.Dataset + "#" + s.prefix() + strings.TrimPrefix(short, s.prefix())
}

// Keep makes a bookmark where the zfs at hand has such: an incremental can build on it when the
// snapshot is gone. Another's snapshot need not be held then any more.
func (s *Source) Keep(ctx context.Context, p source.Point) error {
	can, err := s.abilities(ctx)
	if err != nil || !can.bookmark || s.o.Recursive || p.BaseOnly { // of a tree of datasets there are no bookmarks
		return err
	}
	if _, err := s.run(ctx, "bookmark", p.Name, s.bookmark(p)); err != nil && !strings.Contains(err.Error(), "exists") {
		return err
	}
	if p.Own {
		return nil
	}
	return s.release(ctx, p)
}

// Release destroys a snapshot of this set's own, or a bookmark of its; another's it lets go of.
func (s *Source) Release(ctx context.Context, p source.Point) error {
	sep, short, ok := s.split(p.Name)
	if !ok {
		return fmt.Errorf("%q is no snapshot of %s", p.Name, s.o.Dataset)
	}
	if sep == '@' {
		if err := s.release(ctx, p); err != nil {
			return err
		}
	}
	if !s.own(short) {
		return nil
	}
	args := []string{"destroy", p.Name}
	if sep == '@' {
		args = s.deep("destroy", p.Name)
	}
	if _, err := s.run(ctx, args...); err != nil && !gone(err) {
		return err
	}
	return nil
}

// Receiver is a dataset that streams are received into.
type Receiver struct{ program, dataset string }

var _ source.Receiver = (*Receiver)(nil)

// NewReceiver makes a receiver into a dataset, which the first stream makes. An empty program is zfs.
func NewReceiver(dataset, prog string) (*Receiver, error) {
	if prog == "" {
		prog = "zfs"
	}
	return &Receiver{prog, dataset}, CheckDataset(dataset)
}

// Receive runs zfs receive: without mounting what it makes (-u), and, for what builds on what was just
// received, back to that first (-F), for looking at a mounted file system alone changes it.
func (r *Receiver) Receive(ctx context.Context, in io.Reader, first bool) error {
	argv := []string{r.program, "receive", "-u"}
	if !first {
		argv = append(argv, "-F")
	}
	return process.Feed(ctx, in, r.program+" receive", append(argv, r.dataset)...)
}
