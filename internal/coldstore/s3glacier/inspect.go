package s3glacier

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/units"
)

// Inspect looks at the bucket's versions, locks and lifecycle rules, and writes down what machines must be allowed.
func (s *Store) Inspect(ctx context.Context) (coldstore.Inspection, error) {
	in := coldstore.Inspection{Policies: s.policies()}
	fact := func(name, value string) { in.Facts = append(in.Facts, coldstore.Fact{Name: name, Value: value}) }
	fact("bucket", s.l.bucket)
	fact("region", s.region)
	fact("class", fmt.Sprintf("%s (manifests: %s)", s.l.class, s.l.metaClass))
	// blind says that a setting cannot be seen, which is no error.
	blind := func(name string, err error) bool {
		switch {
		case err == nil:
			return false
		case codeOf(err) == "AccessDenied":
			fact(name, "these credentials may not look")
		case errors.Is(err, coldstore.ErrUnsupported):
			fact(name, "unknown to this server")
		default:
			return false
		}
		return true
	}
	versions, err := s.c.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &s.l.bucket})
	if err = s.asked(ctx, "s3:GetBucketVersioning", err); !blind("versions", err) {
		if err != nil {
			return in, fmt.Errorf("look at the versions of bucket %s: %w", s.l.bucket, err)
		}
		state := strings.ToLower(string(versions.Status))
		if state == "" {
			state = "none"
		}
		fact("versions", state)
		if state == "enabled" {
			in.Notes = append(in.Notes, "the bucket keeps versions: deleting an archive needs s3:ListBucketVersions and s3:DeleteObjectVersion, else it is only hidden and costs as before")
		}
	}
	if err := s.inspectLock(ctx, &in, fact, blind); err != nil {
		return in, err
	}
	rules, err := s.rules(ctx)
	if blind("lifecycle", err) {
		return in, nil
	}
	if err != nil {
		return in, err
	}
	aborts := false
	for _, r := range rules {
		in.Dangers = append(in.Dangers, r.dangers(s.l)...)
		in.Notes = append(in.Notes, r.notes(s.l)...)
		aborts = aborts || r.AbortIncompleteMultipartUpload != nil
	}
	fact("lifecycle", plural(len(rules), "rule that fits", "rules that fit"))
	if !aborts {
		in.Proposals = append(in.Proposals, s.proposal())
	}
	return in, nil
}

func plural(n int, one, many string) string {
	switch n {
	case 0:
		return "no " + one
	case 1:
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// asked classifies an error; nil is none.
func (s *Store) asked(ctx context.Context, action string, err error) error {
	if err == nil {
		return nil
	}
	return s.classify(ctx, action, err)
}

func (s *Store) inspectLock(ctx context.Context, in *coldstore.Inspection, fact func(name, value string), blind func(string, error) bool) error {
	out, err := s.c.GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: &s.l.bucket})
	err = s.asked(ctx, "s3:GetBucketObjectLockConfiguration", err)
	if blind("object lock", err) {
		return nil
	}
	if err != nil && !errors.Is(err, coldstore.ErrNotFound) {
		return fmt.Errorf("look at the object lock of bucket %s: %w", s.l.bucket, err)
	}
	on := err == nil && out.ObjectLockConfiguration != nil && out.ObjectLockConfiguration.ObjectLockEnabled == types.ObjectLockEnabledEnabled
	text := "none"
	if on {
		text = "possible"
		if r := out.ObjectLockConfiguration.Rule; r != nil && r.DefaultRetention != nil {
			d := r.DefaultRetention
			length := units.Count(int(number(d.Days)), "day")
			if n := number(d.Years); n > 0 {
				length = units.Count(int(n), "year")
			}
			text = fmt.Sprintf("%s by default, %s", d.Mode, length)
		}
	}
	if s.l.lock != "" {
		text += fmt.Sprintf("; this vault: %s, %s", s.l.lock, units.Count(int(s.l.lockDays), "day"))
		if !on {
			in.Dangers = append(in.Dangers, fmt.Sprintf("the URL says lock=%s, and bucket %s has no Object Lock: uploads will be refused; turn it on (it needs versions), or take lock= away", s.l.lock, s.l.bucket))
		}
	}
	fact("object lock", text)
	return nil
}

// Dangers looks at the lifecycle rules.
func (s *Store) Dangers(ctx context.Context) ([]string, error) {
	rules, err := s.rules(ctx)
	if codeOf(err) == "AccessDenied" || errors.Is(err, coldstore.ErrUnsupported) {
		return nil, nil
	}
	var list []string
	for _, r := range rules {
		list = append(list, r.dangers(s.l)...)
	}
	return list, err
}

// rule is a lifecycle rule that is on and may fit what the vault stores.
type rule struct{ types.LifecycleRule }

// rules are those that are on and may fit.
func (s *Store) rules(ctx context.Context) ([]rule, error) {
	out, err := s.c.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: &s.l.bucket})
	if err != nil {
		err = s.classify(ctx, "s3:GetLifecycleConfiguration", err)
		if errors.Is(err, coldstore.ErrNotFound) {
			return nil, nil
		}
		return nil, fmt.Errorf("look at the lifecycle rules of bucket %s: %w", s.l.bucket, err)
	}
	var list []rule
	for _, r := range out.Rules {
		x := rule{r}
		if r.Status == types.ExpirationStatusEnabled && x.fits(s.l.root()) {
			list = append(list, x)
		}
	}
	return list, nil
}

// fits says whether a rule may be for objects of the vault: those have no tags, and keys that begin with root.
func (r rule) fits(root string) bool {
	//lint:ignore SA1019 old rules have it
	prefix, tagged := text(r.Prefix), false
	if f := r.Filter; f != nil {
		if f.Prefix != nil {
			prefix = *f.Prefix
		}
		tagged = f.Tag != nil
		if f.And != nil {
			prefix, tagged = text(f.And.Prefix), len(f.And.Tags) > 0
		}
	}
	return !tagged && (strings.HasPrefix(root, prefix) || strings.HasPrefix(prefix, root))
}

func (r rule) name() string {
	if id := text(r.ID); id != "" {
		return "lifecycle rule " + id
	}
	return "a lifecycle rule without a name"
}

// dangers are what a rule does that loses archives.
func (r rule) dangers(l location) []string {
	e := r.Expiration
	if e == nil || number(e.Days) == 0 && e.Date == nil {
		return nil
	}
	when := units.Count(int(number(e.Days)), "day") + " after their upload"
	if e.Date != nil {
		when = "on " + e.Date.UTC().Format("2006-01-02")
	}
	return []string{fmt.Sprintf("%s of bucket %s deletes archives of this vault %s: take it away, or limit it to another prefix than %q", r.name(), l.bucket, when, l.root())}
}

// notes are what a rule does that one should know.
func (r rule) notes(l location) []string {
	var list []string
	for _, t := range r.Transitions {
		list = append(list, fmt.Sprintf("%s moves archives to class %s: manifests too, which then cannot be read at once, and each move is charged", r.name(), t.StorageClass))
	}
	if a := r.AbortIncompleteMultipartUpload; a != nil && number(a.DaysAfterInitiation) < 2 {
		list = append(list, fmt.Sprintf("%s gives up uploads after %s: one that takes longer never ends", r.name(), units.Count(int(number(a.DaysAfterInitiation)), "day")))
	}
	return list
}
