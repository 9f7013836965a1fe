package backup

import (
	"context"

	"github.com/firn-backup/firn/internal/snapshot"
)

// linksKept bounds how many link groups are remembered at a time, twice over.
const linksKept = 50_000

// leader is the name of a link group whose content the others share.
type leader struct {
	path         string
	typ          snapshot.Type
	size         int64
	mtime, ctime snapshot.Time
	content      snapshot.Content
	torn         bool
}

// links finds the names already dealt with of an inode that has several. It
// remembers the most recent groups; those it forgot, and those of the
// attempt's earlier runs, it asks the catalog for.
type links struct {
	r         *run
	cur, prev map[string]leader
	ask       bool // the catalog may know groups that are not remembered
}

func newLinks(r *run) *links {
	return &links{r: r, cur: make(map[string]leader), ask: r.again && r.w != nil}
}

// leader returns the name that e is another name of, if one was dealt with
// in this attempt and the inode has not changed since.
func (l *links) leader(ctx context.Context, e *snapshot.Entry) (leader, bool, error) {
	if e.LinkGroup == "" {
		return leader{}, false, nil
	}
	lead, ok := l.cur[e.LinkGroup]
	if !ok {
		lead, ok = l.prev[e.LinkGroup]
	}
	if !ok && l.ask {
		known, found, err := l.r.o.Catalog.LinkLeader(ctx, l.r.snap.ID, e.LinkGroup)
		if err != nil {
			return leader{}, false, err
		}
		if found {
			lead, ok = leaderOf(&known), true
		}
	}
	if !ok || lead.path == e.Path || !lead.is(e) {
		return leader{}, false, nil
	}
	return lead, true, nil
}

func leaderOf(e *snapshot.Entry) leader {
	return leader{e.Path, e.Type, e.Size, e.MTime, e.CTime, e.Content, e.Torn}
}

// is says that e's inode is as it was when the leader was read.
func (l leader) is(e *snapshot.Entry) bool {
	return l.typ == e.Type && l.size == e.Size && l.mtime == e.MTime && sameCTime(l.ctime, e.CTime)
}

// sameCTime compares change times, of which one may have been spoilt by markRacy.
func sameCTime(a, b snapshot.Time) bool {
	return a == b || a.Sec == b.Sec && (a.Nsec < 0 || b.Nsec < 0)
}

// add remembers e, with its content, for the names of its inode that follow.
func (l *links) add(e *snapshot.Entry) {
	if e.LinkGroup == "" {
		return
	}
	if len(l.cur) >= linksKept {
		// What is forgotten was put long ago, and is in the catalog.
		l.prev, l.cur = l.cur, make(map[string]leader)
		l.ask = l.r.w != nil
	}
	l.cur[e.LinkGroup] = leaderOf(e)
}

// sameEntry says that two entries look the same in a manifest.
func sameEntry(a, b *snapshot.Entry) bool {
	if a.Path != b.Path || a.Type != b.Type || a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID ||
		a.User != b.User || a.Group != b.Group || a.MTime != b.MTime || a.Size != b.Size || a.Link != b.Link ||
		a.Major != b.Major || a.Minor != b.Minor || a.LinkGroup != b.LinkGroup || a.Content != b.Content ||
		a.Torn != b.Torn || len(a.Xattrs) != len(b.Xattrs) {
		return false
	}
	for i := range a.Xattrs {
		if a.Xattrs[i] != b.Xattrs[i] {
			return false
		}
	}
	return true
}
