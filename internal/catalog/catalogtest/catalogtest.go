// Package catalogtest is the suite that every database of the catalog passes:
// each promise of package catalog is a subtest of it.
package catalogtest

import (
	"context"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

// A Target makes an empty catalog. Calling what it returns opens that same catalog
// once more, as another process would, with so many rows a page; tests close what they open.
type Target func(t testing.TB) (open func(pageRows int) *catalog.DB)

// Run runs the suite.
func Run(t *testing.T, target Target) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Target)
	}{
		{"Sets", testSets},
		{"RemoveSet", testRemoveSet},
		{"SnapshotRoundTrip", testSnapshotRoundTrip},
		{"BeginRefuses", testBeginRefuses},
		{"FinishTwice", testFinishTwice},
		{"Discard", testDiscard},
		{"DropSnapshot", testDropSnapshot},
		{"AdoptSnapshots", testAdoptSnapshots},
		{"ForgetChain", testForgetChain},
		{"Abandon", testAbandon},
		{"AddDoomed", testAddDoomed},
		{"PendingRoundTrip", testPendingRoundTrip},
		{"VolumeStored", testVolumeStored},
		{"VolumesOutOfOrder", testVolumesOutOfOrder},
		{"PutVolume", testPutVolume},
		{"Rewind", testRewind},
		{"WriterIsOfAnAttempt", testWriterIsOfAnAttempt},
		{"EntryRoundTrip", testEntryRoundTrip},
		{"WriterRefuses", testWriterRefuses},
		{"WriterConcurrent", testWriterConcurrent},
		{"Refresh", testRefresh},
		{"PutAgain", testPutAgain},
		{"LargeEntries", testLargeEntries},
		{"OrderByContent", testOrderByContent},
		{"Under", testUnder},
		{"Rows", testRows},
		{"NestedCalls", testNestedCalls},
		{"LinkLeader", testLinkLeader},
		{"Problems", testProblems},
		{"Isolation", testIsolation},
		{"Find", testFind},
		{"Gone", testGone},
		{"Retrievals", testRetrievals},
		{"Trust", testTrust},
		{"RunsOfCommands", testRuns},
		{"Lease", testLease},
		{"LeaseRace", testLeaseRace},
		{"ManyHandles", testManyHandles},
		{"Archives", testArchives},
		{"ArchiveDeleted", testArchiveDeleted},
		{"Listing", testListing},
		{"ListingMeanwhile", testListingMeanwhile},
		{"FileUploads", testFileUploads},
		{"Accounts", testAccounts},
		{"ArchivesCalled", testCalled},
		{"Deletions", testDeletions},
		{"Questions", testQuestions},
		{"Adopt", testAdopt},
		{"Items", testItems},
		{"MadeVaults", testMadeVaults},
		{"Histories", testHistories},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, target)
		})
	}
}

// db is an open catalog whose failures end the test.
type db struct {
	*catalog.DB
	t   fataler
	ctx context.Context
}

// fataler is what *testing.T and *rapid.T have in common.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func openDB(t *testing.T, target Target) *db {
	return &db{target(t)(0), t, t.Context()}
}

func (d *db) ok(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatalf("%v", err)
	}
}

func (d *db) kind(want failure.Kind, err error) {
	d.t.Helper()
	if err == nil {
		d.t.Fatalf("no error, want one of kind %d", want)
	}
	if got := failure.KindOf(err); got != want {
		d.t.Fatalf("error %q is of kind %d, want %d", err, got, want)
	}
}

func epoch() time.Time { return time.Date(2026, 11, 22, 2, 0, 0, 123456789, time.UTC) }

// set records a set.
func (d *db) set(id string) {
	d.t.Helper()
	d.ok(d.PutSet(d.ctx, catalog.Set{ID: id, Name: "name of " + id, Host: "host", Kind: "tree", Created: epoch()}))
}

// begin begins an attempt; with a base it is an incremental.
func (d *db) begin(set, id string, n uint64, base string) {
	d.t.Helper()
	d.ok(d.Begin(d.ctx, attempt(set, id, n, base)))
}

func attempt(set, id string, n uint64, base string) catalog.Snapshot {
	s := catalog.Snapshot{ID: id, SetID: set, N: n, Kind: snapshot.Full, At: epoch(), Made: epoch(), Base: base}
	if base != "" {
		s.Kind = snapshot.Incremental
	}
	return s
}

func (d *db) finish(id string) {
	d.t.Helper()
	d.ok(d.FinishStored(d.ctx, id, manifest.Hash{1}, catalog.ArchiveRef{Archive: "m" + id}, catalog.Totals{}))
}

func (d *db) writer(id string) *catalog.EntryWriter {
	d.t.Helper()
	w, err := d.EntryWriter(d.ctx, id)
	d.ok(err)
	return w
}

// put puts files, named and with their size telling the snapshot, and flushes.
func (d *db) put(w *catalog.EntryWriter, size int64, paths ...string) {
	d.t.Helper()
	for _, p := range paths {
		d.ok(w.Put(d.ctx, file(p, size)))
	}
	d.ok(w.Flush(d.ctx))
}

func file(path string, size int64) *snapshot.Entry {
	return &snapshot.Entry{Path: path, Type: snapshot.File, Mode: 0o644, Size: size}
}

// stored makes a whole snapshot of the paths.
func (d *db) stored(set, id string, n uint64, base string, paths ...string) {
	d.t.Helper()
	d.begin(set, id, n, base)
	d.put(d.writer(id), int64(n), paths...)
	d.finish(id)
}

// entries are a snapshot's, in an order.
func (d *db) entries(id string, q catalog.Query) []snapshot.Entry {
	d.t.Helper()
	var list []snapshot.Entry
	d.ok(d.Entries(d.ctx, id, q, func(e snapshot.Entry) error {
		list = append(list, e)
		return nil
	}))
	return list
}

func (d *db) paths(id string, q catalog.Query) []string {
	d.t.Helper()
	list := []string{}
	for _, e := range d.entries(id, q) {
		list = append(list, e.Path)
	}
	return list
}

// change is one call of Changes.
type change struct {
	Path  string
	Entry *snapshot.Entry
}

func (d *db) changes(id string) []change {
	d.t.Helper()
	var list []change
	d.ok(d.Changes(d.ctx, id, func(path string, e *snapshot.Entry) error {
		list = append(list, change{path, e})
		return nil
	}))
	return list
}

// found is one call of Find.
type found struct {
	Entry       snapshot.Entry
	Chain       string
	First, Last uint64
}

func (d *db) find(set string, match func(string) bool) []found {
	d.t.Helper()
	var list []found
	d.ok(d.Find(d.ctx, set, match, func(e snapshot.Entry, chain string, first, last uint64) error {
		list = append(list, found{e, chain, first, last})
		return nil
	}))
	return list
}

func (d *db) rows(id, after string) []string {
	d.t.Helper()
	c, err := d.Rows(d.ctx, id, after)
	d.ok(err)
	list := []string{}
	for {
		r, err := c.Next(d.ctx)
		d.ok(err)
		if r == nil {
			break
		}
		list = append(list, r.Path)
	}
	d.ok(c.Close())
	return list
}
