package app

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/config"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/source"
)

// StreamOptions are what a run of a set that is a stream needs besides Options. stdin is what a set
// of kind stream reads; nil: it has nothing to read.
func (a *App) StreamOptions(t Target, stdin io.Reader, notice func(string)) (backup.StreamOptions, error) {
	src, err := a.OpenStream(t, stdin)
	if err != nil {
		return backup.StreamOptions{}, err
	}
	return backup.StreamOptions{Source: src, KeepLocal: t.Config.KeepLocal, Notice: notice}, nil
}

// OpenStream opens the producer of a set. Its own snapshots bear the set's id, so the set must have one.
func (a *App) OpenStream(t Target, stdin io.Reader) (source.Stream, error) {
	kind := t.Config.KindOf()
	for _, k := range streamSources() {
		if k.kind != kind {
			continue
		}
		src, err := k.open(t.Config, t.Set.ID, stdin)
		if err != nil {
			return nil, failure.Wrap(failure.Usage, fmt.Errorf("set %s: %w", t.Set.Name, err))
		}
		return src, nil
	}
	return nil, failure.Errorf(failure.Usage, "set %s: kind %s is no stream", t.Set.Name, kind)
}

// sourceParams are what of a producer must be unchanged for an interrupted attempt to go on.
func sourceParams(s *config.Set) []string {
	if !s.IsStream() {
		return nil
	}
	flags := fmt.Sprintf("recursive=%t raw=%t intermediates=%t snapshot=%s", s.Recursive, s.Raw, s.Intermediates, s.Snapshot)
	return append([]string{s.KindOf(), s.Dataset, s.Subvolume, flags, strings.Join(s.SnapshotMatch, "\n")}, s.Command...)
}

// StdinTarget is the set of that name that a stream from standard input goes to: one of the config file of kind
// stream, or one that is made with the first stream of that name.
func (a *App) StdinTarget(ctx context.Context, name string) (Target, error) {
	known, err := a.knownSets(ctx)
	if err != nil {
		return Target{}, err
	}
	if s := a.Config.Sets[name]; s != nil {
		if s.KindOf() != config.KindStream {
			return Target{}, failure.Errorf(failure.Usage, "set %s is of kind %s; what comes in through a pipe goes to one of kind stream", name, s.KindOf())
		}
		return a.configured(known, s)
	}
	if name == "" || nameOf(name) != name || strings.ContainsAny(name, "/@") {
		return Target{}, failure.Errorf(failure.Usage, "%q cannot be the name of a set", name)
	}
	s := &config.Set{Name: name, Kind: config.KindStream}
	i := slices.IndexFunc(known, func(k catalog.Set) bool { return k.Host == a.Host && k.Name == name })
	if i < 0 {
		return a.fresh(Target{Config: s, Set: catalog.Set{Name: name, Vault: a.DefaultVaultURL(), Kind: config.KindStream}})
	}
	if !config.IsStreamKind(kindOfSet(known[i])) {
		return Target{}, failure.Errorf(failure.Usage, "set %s is of kind %s and not a stream", name, kindOfSet(known[i]))
	}
	return Target{Set: known[i], Config: s}, nil
}

// MakeLocal makes a local snapshot of a set of kind zfs or btrfs, which no backup follows, and
// gives up those that are older than the set's keep-local and that no incremental needs.
func (a *App) MakeLocal(ctx context.Context, t Target, now time.Time, notice func(string)) (source.Point, error) {
	src, err := a.OpenStream(t, nil)
	if err != nil {
		return source.Point{}, err
	}
	if !src.Traits().Points || t.Config.Existing() {
		return source.Point{}, failure.Errorf(failure.Usage, "set %s makes no snapshots of its own", t.Set.Name)
	}
	if t.Config.KeepLocal <= 0 {
		return source.Point{}, failure.Errorf(failure.Usage, "set %s keeps no local snapshots: it has no keep-local", t.Set.Name)
	}
	db, err := a.Catalog(ctx, true)
	if err != nil {
		return source.Point{}, err
	}
	snaps, err := db.Snapshots(ctx, t.Set.ID)
	if err != nil {
		return source.Point{}, err
	}
	p, err := src.Make(ctx, now)
	if err != nil {
		return p, err
	}
	points, err := src.Points(ctx)
	if err != nil {
		return p, err
	}
	points = slices.DeleteFunc(points, func(x source.Point) bool { return x.Name == p.Name })
	backup.ReleasePoints(ctx, src, points, snaps, t.Config.KeepLocal, now, notice)
	return p, nil
}
