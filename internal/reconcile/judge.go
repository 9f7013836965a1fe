// Package reconcile is the use case of holding the catalog's knowledge of a
// vault's archives against a listing of the vault, which may be a day old, and of emptying
// a vault. What follows from one archive's state is decided by pure
// functions.
package reconcile

import (
	"fmt"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/foreign"
)

// Kind says what was found.
type Kind string

const (
	Gone      Kind = "gone"      // the listing has it no more, though it should
	Different Kind = "different" // its size or tree hash is not what it was
	Returned  Kind = "returned"  // it was deleted here, and a later listing still has it
	Damaged   Kind = "damaged"   // the vault itself sees that it is damaged
	Orphan    Kind = "orphan"    // Firn's, and no snapshot of its set needs it
	Renamed   Kind = "renamed"   // its description is not what another program had told
	Settled   Kind = "settled"   // an upload whose completion was in doubt had happened; the catalog knows now
)

// View is what a listing is held against. All times matter to the nanosecond.
type View struct {
	Vault string
	AsOf  time.Time // of the listing
	// Taken is when it was taken in, by the clock that uploads and deletions are recorded by. What happened within the
	// Margin before that is not judged either: the service's clock may be ahead. Zero: AsOf.
	Taken time.Time
	// Margin is how much earlier than AsOf something must have happened to be certainly in the listing: the time
	// is the service's, and so is the notion of what a listing made at it has in it.
	Margin time.Duration
	Terse  bool // the listing tells no descriptions
	// Fix accepts what the listing says where that contradicts the catalog.
	Fix bool
}

// until is the time up to which the listing may tell of what was done here.
func (v View) until() time.Time {
	if !v.Taken.IsZero() && v.Taken.Before(v.AsOf) {
		return v.Taken
	}
	return v.AsOf
}

// maxMargin is the most that a listing of a lagging store is distrusted: one is made in
// some hours.
const maxMargin = 12 * time.Hour

func margin(t coldstore.Traits) time.Duration { return min(t.ListLag, maxMargin) }

// Verdict is what follows for one archive.
type Verdict struct {
	Change  *catalog.ArchiveChange // nil: none
	Finding Kind                   // empty: none
	Reason  string
	New     bool // it was not known
	Newer   bool // it is newer than the listing, and kept
}

// Judge decides what becomes of the record of an archive. What was uploaded here is never
// dropped unless it was deleted here too, or Fix says so.
func Judge(s catalog.ArchiveState, v View) Verdict {
	switch {
	case s.Listed == nil && s.Record == nil: // a snapshot needs it; verify is who looks for those
		return Verdict{}
	case s.Listed == nil:
		return unlisted(s, v)
	case s.Record == nil:
		return Verdict{New: true, Change: &catalog.ArchiveChange{
			Record: catalog.ArchiveRecord{Vault: v.Vault, Archive: *s.Listed, SeenAsOf: v.AsOf},
		}}
	}
	return listed(s, v)
}

func unlisted(s catalog.ArchiveState, v View) Verdict {
	r := *s.Record
	if !r.DeletedAt.IsZero() {
		if r.DeletedAt.Add(v.Margin).After(v.until()) {
			return Verdict{}
		}
		return Verdict{Change: &catalog.ArchiveChange{Was: s.Record, Record: r, Drop: true}}
	}
	if r.SeenAsOf.IsZero() && !since(r).Add(v.Margin).Before(v.until()) {
		return Verdict{Newer: true}
	}
	out := Verdict{Finding: Gone, Reason: "it is not in the listing any more"}
	switch {
	case r.SeenAsOf.IsZero() && since(r).IsZero():
		out.Reason = "another program knew of it, and it is not in the listing"
	case r.SeenAsOf.IsZero():
		out.Reason = "it was uploaded at " + stamp(since(r)) + " and is not in the listing"
	default:
		out.Reason = "the listing of " + stamp(r.SeenAsOf) + " had it"
	}
	switch {
	case v.Fix:
		out.Change = &catalog.ArchiveChange{Was: s.Record, Record: r, Drop: true}
	case s.Current: // not in the last listing any more, but in the one before
		out.Change = &catalog.ArchiveChange{Was: s.Record, Record: r}
	}
	return out
}

// since is when an archive came to be, by the later of two clocks.
func since(r catalog.ArchiveRecord) time.Time {
	if r.Created.After(r.UploadedAt) {
		return r.Created
	}
	return r.UploadedAt
}

func listed(s catalog.ArchiveState, v View) Verdict {
	was := *s.Record
	now := was
	now.SeenAsOf = v.AsOf
	var out Verdict
	switch {
	case was.DeletedAt.IsZero():
	case was.DeletedAt.Add(v.Margin).After(v.until()), !v.AsOf.After(was.SeenAsOf): // the listing is older than the deletion
		return Verdict{}
	default:
		now.DeletedAt = time.Time{}
		out.Finding, out.Reason = Returned, "it was deleted here at "+stamp(was.DeletedAt)+", and is still there"
	}
	a := *s.Listed
	if v.Terse && a.Description == "" {
		a.Description = was.Description
	}
	unknown := was.Size == 0 // only its deletion is known
	hashes := !was.TreeHash.IsZero() && !a.TreeHash.IsZero() && was.TreeHash != a.TreeHash
	if !unknown && (was.Size != a.Size || hashes) {
		out.Finding = Different
		out.Reason = fmt.Sprintf("it had %d bytes of tree hash %s, and the listing says %d of %s", was.Size, was.TreeHash, a.Size, a.TreeHash)
	}
	if out.Finding != Different || v.Fix {
		now.Size = a.Size
		if !a.TreeHash.IsZero() {
			now.TreeHash = a.TreeHash
		}
	}
	switch renamed := strings.TrimSpace(was.Description) != strings.TrimSpace(a.Description); {
	case renamed && was.UploadedAt.IsZero() && sameMeaning(was.Description, a.Description): // nobody told how the tool had written it
		now.Description = a.Description
	case unknown && was.Description == "", was.Description == "" && was.UploadedAt.IsZero():
		now.Description = a.Description
	case renamed && out.Finding == "":
		out.Finding = Renamed
		out.Reason = fmt.Sprintf("it was called %q, and the listing says %q", was.Description, a.Description)
		fallthrough
	case renamed:
		if v.Fix {
			now.Description, now.Name = a.Description, ""
		}
	case was.UploadedAt.IsZero():
		now.Description = a.Description
	}
	if !a.Created.IsZero() {
		now.Created = a.Created
	}
	same := now
	same.SeenAsOf = was.SeenAsOf
	if !s.Current || same != was {
		out.Change = &catalog.ArchiveChange{Was: s.Record, Record: now}
	}
	return out
}

// sameMeaning says whether two descriptions are the same name and time in the words of one tool: the order of words in mt-aws-glacier's is random, and
// its journal tells names and times only.
func sameMeaning(was, is string) bool {
	a, ok := foreign.Decode(was)
	if !ok {
		return false
	}
	b, ok := foreign.Decode(is)
	a.Form, b.Form = "", ""
	return ok && a == b
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
