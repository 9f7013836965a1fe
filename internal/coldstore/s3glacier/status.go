package s3glacier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/firn-backup/firn/internal/coldstore"
)

// Whether an endpoint's listings tell how restores stand.
const (
	listsUnknown int32 = iota
	listsTell
	listsSilent
)

const (
	// fresh is how old a listing may be that is used to tell how many restores stand: a thousand
	// are looked after with one request.
	fresh = 20 * time.Second
	// cacheSize is how many objects are kept of listings.
	cacheSize = 20_000
)

// statusCache keeps what listings told not long ago, by the vault's clock and by the real one, of which either may
// stand still. The zero one is empty.
type statusCache struct {
	mu sync.Mutex
	m  map[string]known
}

type known struct {
	o    object
	at   time.Time // by the vault's clock
	real time.Time
}

func (c *statusCache) get(name string, now time.Time) (object, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.m[name]
	if !ok || time.Since(k.real) > fresh || now.Sub(k.at).Abs() > fresh {
		return object{}, false
	}
	return k.o, true
}

func (c *statusCache) put(list []object, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	real := time.Now()
	if c.m == nil || len(c.m)+len(list) > cacheSize {
		c.m = map[string]known{}
	}
	for _, o := range list {
		c.m[o.name] = known{o, now, real}
	}
}

func (c *statusCache) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.m, name)
}

// look tells what a listing says of an archive, together with what comes after it: who asks
// for one asks for its neighbours next.
func (s *Store) look(ctx context.Context, name string) (object, error) {
	if o, ok := s.status.get(name, s.o.Now()); ok {
		return o, nil
	}
	o, err := s.find(ctx, name)
	if err != nil {
		return o, err
	}
	list := []object{o}
	dir := name[:strings.LastIndex(name, "/")+1]
	more, _, err := s.page(ctx, dir, name, "", 1000)
	if err != nil {
		return o, err
	}
	s.status.put(append(list, more...), s.o.Now())
	return o, nil
}

// head is what HEAD tells of an archive's restoring. It needs the permission to read.
func (s *Store) head(ctx context.Context, name string) (object, error) {
	out, err := s.c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.l.bucket, Key: s.key(name), RequestPayer: s.payer()})
	if err != nil {
		return object{}, s.classify(ctx, "s3:GetObject", err)
	}
	o := object{
		name: name, size: number(out.ContentLength), etag: text(out.ETag), modified: moment(out.LastModified),
		class: types.ObjectStorageClass(out.StorageClass), restore: parseRestore(text(out.Restore)),
	}
	if o.class == "" {
		o.class = types.ObjectStorageClassStandard
	}
	if o.class == types.ObjectStorageClassIntelligentTiering && out.ArchiveStatus == "" {
		o.class = types.ObjectStorageClassStandard // in a tier that is read at once
	}
	return o, nil
}

// parseRestore reads `ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"`.
func parseRestore(h string) restoring {
	var r restoring
	if h == "" {
		return r
	}
	r.told = true
	r.running = strings.Contains(h, `ongoing-request="true"`)
	if _, rest, ok := strings.Cut(h, `expiry-date="`); ok {
		date, _, _ := strings.Cut(rest, `"`)
		for _, layout := range []string{time.RFC1123, "Mon, 2 Jan 2006 15:04:05 MST", time.RFC3339} {
			if t, err := time.Parse(layout, date); err == nil {
				r.until = t.UTC()
				break
			}
		}
	}
	return r
}

// archived says that an object of a class must be restored before it is read.
func archived(c types.ObjectStorageClass) bool {
	switch c {
	case types.ObjectStorageClassGlacier, types.ObjectStorageClassDeepArchive:
		return true
	}
	return false
}

// standing tells how an archive stands: by listing, and by HEAD where listings do not tell or may not.
func (s *Store) standing(ctx context.Context, name string) (object, error) {
	o, err := s.look(ctx, name)
	if err != nil {
		return o, err
	}
	tiering := o.class == types.ObjectStorageClassIntelligentTiering
	if !archived(o.class) && !tiering || o.restore.told {
		return o, nil
	}
	if s.lists.Load() == listsTell && !tiering {
		return o, nil // it would say so
	}
	h, err := s.head(ctx, name)
	switch {
	case errors.Is(err, coldstore.ErrNotFound):
		s.status.forget(name)
		return o, fmt.Errorf("it has just gone: %w", err)
	case err != nil:
		return o, err
	}
	if h.restore.told && s.lists.Load() == listsUnknown {
		s.lists.Store(listsSilent)
	}
	return h, nil
}
