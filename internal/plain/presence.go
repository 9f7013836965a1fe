package plain

import (
	"time"

	"github.com/firn-backup/firn/internal/catalog"
)

// Presence is what is known of whether an archive is in a vault.
type Presence int

const (
	Unknown Presence = iota
	Present
	Absent
)

// goneLag is how much older than a listing an archive must be to be missed in it: a listing
// may be of a vault as it was so long before.
const goneLag = 3 * 24 * time.Hour

// clockSkew is how far ahead of this machine's clock a time may be. What is later was written down before the clock was set
// back: how old it is nobody knows.
const clockSkew = 24 * time.Hour

// Knowledge is what presence is judged by. All times but Through are of the catalog's own clock.
type Knowledge struct {
	Records []catalog.ArchiveRecord // of that name, deleted ones included
	Listing catalog.VaultListing    // the last that was taken in
	// Through is until when the listing tells what was there: Listing.AsOf, or later where the service says that nothing has
	// changed since.
	Through time.Time
	// Asked is when the name was first asked for and nothing was known of it; zero: it was not. Somebody may have stored it shortly
	// before that: only a listing that tells of a later time says that it is absent.
	Asked  time.Time
	Now    time.Time
	MaxAge time.Duration // how old knowledge may be; 0: nothing is young enough
}

func (k *Knowledge) fresh(t time.Time) bool {
	age := k.Now.Sub(t)
	return !t.IsZero() && k.MaxAge > 0 && age <= k.MaxAge && age >= -clockSkew
}

// Judge says whether an archive of the name is there. Absent is said only where a young listing has none, or where the last
// of them was deleted here not long ago: programs believe it, and forget what they have stored. Present: an archive was
// uploaded here, or listed, not long ago, and not deleted since.
func (k *Knowledge) Judge() (Presence, catalog.ArchiveRecord) {
	var best catalog.ArchiveRecord
	var deleted time.Time
	found, open := false, false
	for _, r := range k.Records {
		if !r.DeletedAt.IsZero() {
			if r.DeletedAt.After(deleted) {
				deleted = r.DeletedAt
			}
			continue
		}
		inLast := !r.SeenAsOf.IsZero() && !r.SeenAsOf.Before(k.Listing.AsOf)
		switch {
		case k.fresh(r.UploadedAt) && !k.missed(r), k.fresh(r.SeenAsOf) && !k.missed(r), inLast && k.fresh(k.Through):
			if !found || !r.Created.Before(best.Created) {
				best, found = r, true
			}
		case !k.missed(r):
			open = true
		}
	}
	switch {
	case found:
		return Present, best
	case open:
		return Unknown, best
	case k.fresh(k.Through) && (k.Asked.IsZero() || k.Through.After(k.Asked)), k.fresh(deleted):
		return Absent, best
	}
	return Unknown, best
}

// missed says that the last listing should have had the archive, and had it not.
func (k *Knowledge) missed(r catalog.ArchiveRecord) bool {
	if k.Listing.AsOf.IsZero() || !r.SeenAsOf.Before(k.Listing.AsOf) {
		return false
	}
	if !r.SeenAsOf.IsZero() && r.UploadedAt.Before(r.SeenAsOf) {
		return true // an earlier listing had it
	}
	until := k.Listing.AsOf
	if k.Listing.Taken.Before(until) {
		until = k.Listing.Taken // the service's clock is ahead
	}
	last := r.UploadedAt
	if r.Created.After(last) {
		last = r.Created
	}
	return last.Add(goneLag).Before(until)
}
