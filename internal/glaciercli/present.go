package glaciercli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/plain"
	"github.com/firn-backup/firn/internal/transfer"
)

// presentAge is how old, in hours, knowledge of presence and absence may be.
const presentAge = 60

// archiveCheckpresent prints the reference if the archive is there, and nothing if it is known that it is not.
// Otherwise it exits with 75, and sees to it that it will be known.
func archiveCheckpresent(ctx context.Context, s *session) error {
	ref := s.args.args[1]
	v, err := s.vault(ctx, s.args.args[0])
	if err != nil {
		return err
	}
	hours := int64(presentAge)
	if s.args.has("--max-age") {
		hours = s.args.numbers["--max-age"]
	}
	p := &presence{vault: v, ref: ref, maxAge: ageOf(hours), wait: s.args.has("--wait")}
	is, err := p.find(ctx)
	if err := p.remember(ctx, is); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	switch is {
	case plain.Present:
		s.line(ref)
		for _, key := range bareKeys(strings.TrimPrefix(ref, "name:")) {
			s.line(key)
		}
	case plain.Absent:
		if !s.args.has("--quiet") {
			s.talk("", fmt.Sprintf("archive %s not found", repr(ref)))
		}
	default:
		return &pending{fmt.Sprintf("whether archive %s is there is not known: the newest inventory is from before it was asked for; try again tomorrow", repr(ref))}
	}
	return nil
}

// presence is the question whether an archive is there.
type presence struct {
	*vault
	ref    string
	maxAge time.Duration
	wait   bool
	asked  time.Time // the first time, in vain
}

// remember keeps a question that was not answered, and forgets one that was.
func (p *presence) remember(ctx context.Context, is plain.Presence) error {
	if p.lists {
		return nil
	}
	name := strings.TrimPrefix(p.ref, "name:")
	if is == plain.Unknown {
		return p.db.Asked(ctx, p.url, name, p.app.Now())
	}
	if p.asked.IsZero() {
		return nil
	}
	return p.db.Answered(ctx, p.url, name)
}

// known answers from the catalog, else by what the service says about the vault. made is when the service made its newest inventory,
// where that was asked.
func (p *presence) known(ctx context.Context) (is plain.Presence, made time.Time, err error) {
	if p.lists {
		if there, err := p.seen(ctx); there || err != nil {
			return plain.Present, made, err
		}
		all, err := p.references(ctx, p.ref)
		if err != nil || len(alive(all)) == 0 {
			return plain.Absent, made, err
		}
		return plain.Present, made, nil
	}
	is, l, err := p.judge(ctx, time.Time{})
	if is != plain.Unknown || err != nil {
		return is, made, err
	}
	if is, err = p.settled(ctx); is != plain.Unknown || err != nil {
		return is, made, err
	}
	through, made, err := p.unchanged(ctx, l)
	if err != nil {
		return is, made, err
	}
	is, _, err = p.judge(ctx, through)
	return is, made, err
}

// find answers by what is known, else by the inventory.
func (p *presence) find(ctx context.Context) (plain.Presence, error) {
	is, made, err := p.known(ctx)
	if is != plain.Unknown || err != nil {
		return is, err
	}
	// An inventory that was fetched before the newest one was made does not help.
	age := p.maxAge
	if !made.IsZero() {
		age = min(age, max(p.app.Now().Sub(made), 0))
	}
	if l, err := p.db.LastListing(ctx, p.url); err != nil || p.maxAge > 0 && !made.IsZero() && !l.AsOf.Before(made.Truncate(time.Second)) {
		return is, err // that is the newest there is
	}
	for try := 0; ; try++ {
		o := syncOptions{wait: p.wait, maxAge: age}
		if try == 0 { // another process may have taken it in meanwhile
			o.needless = func() (bool, error) {
				is, _, err = p.known(ctx)
				return is != plain.Unknown, err
			}
		}
		if _, err := p.sync(ctx, o); err != nil {
			return plain.Unknown, p.later(err)
		}
		if is, made, err = p.known(ctx); is != plain.Unknown || err != nil {
			return is, err
		}
		l, err := p.db.LastListing(ctx, p.url)
		if err != nil || try == 1 || p.maxAge == 0 || !l.AsOf.Before(made.Truncate(time.Second)) {
			return is, err
		}
		age = time.Nanosecond // what was used was fetched before the newest inventory was made
	}
}

// later says what is being waited for, and for whom.
func (p *presence) later(err error) error {
	if e := (*pending)(nil); errors.As(err, &e) {
		return &pending{fmt.Sprintf("%s\nwhether archive %s is there is not known before that: try again in some hours", e.text, repr(p.ref))}
	}
	return err
}

// seen looks whether an archive that the catalog knows is there, of a vault that can tell that without a listing.
func (p *presence) seen(ctx context.Context) (bool, error) {
	known, err := p.db.ArchivesCalled(ctx, p.url, strings.TrimPrefix(p.ref, "name:"))
	if err != nil || strings.HasPrefix(p.ref, "id:") || len(alive(known)) == 0 {
		return false, err
	}
	v, err := p.open(ctx)
	if err != nil {
		return false, err
	}
	s, ok := v.Store.(coldstore.Stater)
	if !ok {
		return false, nil
	}
	newest := alive(known)
	_, err = s.Stat(ctx, newest[len(newest)-1].ID)
	return err == nil, nil // whatever is wrong, the listing tells more
}

// judge answers from the catalog. through is until when the last listing is known to hold; zero: as of its own time.
func (p *presence) judge(ctx context.Context, through time.Time) (plain.Presence, catalog.VaultListing, error) {
	l, err := p.db.LastListing(ctx, p.url)
	if err != nil {
		return plain.Unknown, l, err
	}
	all, err := p.references(ctx, p.ref)
	if err != nil {
		return plain.Unknown, l, err
	}
	if through.Before(l.AsOf) {
		through = l.AsOf
	}
	if p.asked, err = p.db.WhenAsked(ctx, p.url, strings.TrimPrefix(p.ref, "name:")); err != nil {
		return plain.Unknown, l, err
	}
	if now := p.app.Now(); !p.asked.IsZero() && now.Sub(p.asked) > catalog.QuestionLife {
		p.asked = now // this is another question
	}
	k := plain.Knowledge{Records: all, Listing: l, Through: through, Asked: p.asked, Now: p.app.Now(), MaxAge: p.maxAge}
	is, _ := k.Judge()
	return is, l, nil
}

// settled finds an archive of that name whose upload was interrupted at its end.
func (p *presence) settled(ctx context.Context) (plain.Presence, error) {
	name := strings.TrimPrefix(p.ref, "name:")
	list, err := p.db.FileUploads(ctx, p.url, "stdin:"+name)
	if err != nil || len(list) == 0 || strings.HasPrefix(p.ref, "id:") {
		return plain.Unknown, err
	}
	v, err := p.open(ctx)
	if err != nil {
		return plain.Unknown, err
	}
	ctx, release, err := p.app.LockUpload(ctx, p.url, "stdin:"+name)
	if failure.KindOf(err) == failure.Locked {
		return plain.Unknown, nil // it is being uploaded now
	}
	if err != nil {
		return plain.Unknown, err
	}
	defer release()
	if _, err := v.Settle(ctx, name, transfer.Options{}); err != nil {
		return plain.Unknown, err
	}
	is, _, err := p.judge(ctx, time.Time{})
	return is, err
}

// unchanged asks the service when it last made an inventory (made). If that is the one that was taken in last, nothing
// had changed until a while ago (through): inventories are made within that time after a change.
func (p *presence) unchanged(ctx context.Context, l catalog.VaultListing) (through, made time.Time, err error) {
	v, err := p.open(ctx)
	if err != nil {
		return through, made, err
	}
	d, ok := v.Store.(coldstore.VaultDescriber)
	if !ok {
		return l.AsOf, made, nil
	}
	var now coldstore.Vault
	err = transfer.Retry(ctx, transfer.Options{}, func() (err error) {
		now, err = d.DescribeVault(ctx)
		return err
	})
	if err != nil {
		return through, made, noVault(p.name, err)
	}
	if l.AsOf.IsZero() || now.Inventory.Truncate(time.Second).After(l.AsOf) {
		return l.AsOf, now.Inventory, nil
	}
	through = p.app.Now().Add(-v.Store.Traits().ListLag)
	if through.Before(l.AsOf) {
		through = l.AsOf
	}
	return through, now.Inventory, nil
}

// backends of git-annex, whose keys are looked for behind a prefix. Those of external ones begin with X and are found behind a
// character that none has.
func backends() []string {
	return []string{"SHA256E", "SHA256", "SHA512E", "SHA512", "SHA384E", "SHA384", "SHA224E", "SHA224", "SHA1E", "SHA1",
		"SHA3_256E", "SHA3_256", "SHA3_512E", "SHA3_512", "SHA3_384E", "SHA3_384", "SHA3_224E", "SHA3_224",
		"SKEIN256E", "SKEIN256", "SKEIN512E", "SKEIN512", "BLAKE2B256E", "BLAKE2B256", "BLAKE2B512E", "BLAKE2B512", "BLAKE2B160E", "BLAKE2B160",
		"BLAKE2B224E", "BLAKE2B224", "BLAKE2B384E", "BLAKE2B384", "BLAKE2BP512E", "BLAKE2BP512", "BLAKE2S256E", "BLAKE2S256", "BLAKE2S160E", "BLAKE2S160",
		"BLAKE2S224E", "BLAKE2S224", "BLAKE2SP256E", "BLAKE2SP256", "BLAKE2SP224E", "BLAKE2SP224", "MD5E", "MD5", "WORM", "URL", "VURL",
		"GPGHMACSHA1", "GPGHMACSHA224", "GPGHMACSHA256", "GPGHMACSHA384", "GPGHMACSHA512", "GITBUNDLE", "GITMANIFEST"}
}

// bareKeys are the keys of git-annex that a name may end in, with a prefix before them: git-annex asks for the name and looks for
// the key. A name that is itself a key has none.
func bareKeys(name string) []string {
	if isKey(name) {
		return nil
	}
	var keys []string
	for i := 1; i < len(name); i++ {
		if !isKey(name[i:]) || name[i] == 'X' && name[i-1] == 'X' {
			continue
		}
		keys = append(keys, name[i:])
		if name[i] != 'X' { // which may be the prefix's last letter
			break
		}
	}
	return keys
}

// isKey says whether s is BACKEND-fields--name, with a backend that is known.
func isKey(s string) bool {
	fields, rest, ok := strings.Cut(s, "--")
	if !ok || rest == "" {
		return false
	}
	backend, fields, _ := strings.Cut(fields, "-")
	known := strings.HasPrefix(backend, "X") && len(backend) > 1 && strings.Trim(backend, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
	for _, b := range backends() {
		known = known || b == backend
	}
	if !known {
		return false
	}
	for fields != "" {
		var f string
		f, fields, _ = strings.Cut(fields, "-")
		if len(f) < 2 || !strings.Contains("smSC", f[:1]) || strings.Trim(f[1:], "0123456789") != "" {
			return false
		}
	}
	return true
}
