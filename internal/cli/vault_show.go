package cli

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/itemstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/units"
)

// vaultService is what a service tells of a vault without a listing.
type vaultService struct {
	ID            string            `json:"id"`
	Created       *string           `json:"created,omitempty"`
	Inventory     *string           `json:"inventory,omitempty"` // when the service last counted; absent: never
	Tags          map[string]string `json:"tags,omitempty"`
	Policy        any               `json:"policy,omitempty"`
	Lock          *jsonLock         `json:"lock,omitempty"`
	Notifications *jsonNotify       `json:"notifications,omitempty"`
}

// contents counts a vault's archives by what they are.
type contents struct {
	by             map[string]*vaultContent
	archives, size int64
}

func (n *contents) add(a coldstore.Archive) {
	if n.by == nil {
		n.by = map[string]*vaultContent{}
	}
	what := "foreign"
	if d, ok := manifest.ParseDescription(a.Description); ok {
		what = d.What
	} else if d, ok := manifest.ParseName(a.ID); ok { // all that some vaults list
		what = d.What
	}
	k := n.by[what]
	if k == nil {
		k = &vaultContent{What: what}
		n.by[what] = k
	}
	k.Archives++
	k.Size += a.Size
	n.archives++
	n.size += a.Size
}

func (n *contents) list() []vaultContent {
	var list []vaultContent
	for _, what := range slices.Sorted(maps.Keys(n.by)) {
		list = append(list, *n.by[what])
	}
	return list
}

// contentName is what people are told of a sort of archive; in JSON it is what descriptions call it.
func contentName(what string) string {
	if what == itemstore.WhatIndex {
		return "index of items"
	}
	return what
}

func (n *contents) print(o *output) {
	t := newTable("CONTENT", ">ARCHIVES", ">SIZE")
	for _, k := range n.list() {
		t.row(contentName(k.What), count(k.Archives), units.Size(k.Size))
	}
	t.row("all", count(n.archives), units.Size(n.size))
	t.print(o)
}

// showService shows a vault whose listing takes hours: what the service tells at once, and what the catalog knows.
func (c *command) showService(ctx context.Context, a *app.App, url string, s coldstore.Store) error {
	v := jsonVault{URL: url, Exists: true, MinDays: s.Traits().MinDays, Service: &vaultService{}}
	var now coldstore.Vault
	if err := administer(ctx, func() (err error) { now, err = s.(coldstore.VaultDescriber).DescribeVault(ctx); return err }); err != nil {
		return err
	}
	v.Name = now.Name
	v.Service.ID, v.Service.Created, v.Service.Inventory = now.ID, stampJSON(now.Created), stampJSON(now.Inventory)
	if !now.Inventory.IsZero() {
		v.Archives, v.Size = &now.Archives, &now.Bytes
	}
	lock, err := c.askService(ctx, s, v.Service)
	if err != nil {
		return err
	}
	db, last, err := lastListing(ctx, a, url)
	if err != nil {
		return err
	}
	var known contents
	if db != nil {
		err := db.FindArchives(ctx, url, nil, func(r catalog.ArchiveRecord) error {
			if r.DeletedAt.IsZero() {
				known.add(r.Archive)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	v.Kinds, v.AsOf = known.list(), stampJSON(last.AsOf)
	if c.json {
		return c.document(v)
	}
	t := newTable("VAULT", clean(now.ID))
	t.row("made", c.stamp(now.Created))
	t.row("inventory", c.stamp(now.Inventory))
	if !now.Inventory.IsZero() {
		t.row("archives", count(now.Archives))
		t.row("size", units.Size(now.Bytes))
	}
	t.row("minimum", strconv.Itoa(v.MinDays)+" days")
	for _, k := range slices.Sorted(maps.Keys(v.Service.Tags)) {
		t.row("tag", clean(k+"="+v.Service.Tags[k]))
	}
	if v.Service.Policy != nil {
		t.row("policy", "yes (firn vault policy show)")
	}
	if lock != nil {
		t.row("lock", c.lockText(*lock))
	}
	if n := v.Service.Notifications; n != nil {
		t.row("notifies", clean(n.Topic))
	}
	t.print(c.output)
	if known.archives > 0 || !last.AsOf.IsZero() {
		c.talk("in the catalog, as of %s:", c.stamp(last.AsOf))
		known.print(c.output)
	} else {
		c.talk("the catalog knows nothing of its archives: firn vault sync fetches the inventory")
	}
	return nil
}

// askService asks for all that a vault may have. What the credentials may not see is left out.
func (c *command) askService(ctx context.Context, s coldstore.Store, out *vaultService) (lock *coldstore.VaultLock, err error) {
	optional := func(f func() error) {
		if err != nil {
			return
		}
		e := administer(ctx, f)
		switch {
		case e == nil || failure.KindOf(e) == failure.NotFound || errors.Is(e, coldstore.ErrUnsupported):
		case ctx.Err() != nil:
			err = e
		default:
			c.warn("%v", e)
		}
	}
	if t, ok := s.(coldstore.Tagger); ok {
		optional(func() (err error) { out.Tags, err = t.Tags(ctx); return err })
	}
	if p, ok := s.(coldstore.AccessPolicyKeeper); ok {
		optional(func() error {
			text, err := p.AccessPolicy(ctx)
			if err == nil {
				out.Policy = rawJSON(text)
			}
			return err
		})
	}
	if l, ok := s.(coldstore.VaultLocker); ok {
		optional(func() error {
			x, err := l.VaultLock(ctx)
			if err == nil {
				j := lockJSON(x)
				lock, out.Lock = &x, &j
			}
			return err
		})
	}
	if n, ok := s.(coldstore.Notifier); ok {
		optional(func() error {
			x, err := n.Notifications(ctx)
			if err == nil {
				out.Notifications = &jsonNotify{x.Topic, x.Events}
			}
			return err
		})
	}
	return lock, err
}

// listAccount lists all vaults of an account in a region.
func (c *command) listAccount(ctx context.Context, a *app.App, nameOrURL string) error {
	l, err := accountAbility[coldstore.VaultLister](ctx, a, nameOrURL, "list of vaults")
	if err != nil {
		return err
	}
	list := []jsonVault{}
	t := newTable("NAME", "MADE", "INVENTORY", ">ARCHIVES", ">SIZE")
	err = administer(ctx, func() error {
		list, t.rows = list[:0], t.rows[:1]
		return l.ListVaults(ctx, func(v coldstore.Vault) error {
			j := jsonVault{Name: v.Name, URL: serviceURL(v.ID), Exists: true, Service: &vaultService{ID: v.ID, Created: stampJSON(v.Created), Inventory: stampJSON(v.Inventory)}}
			archives, size := "-", "-"
			if !v.Inventory.IsZero() {
				j.Archives, j.Size = &v.Archives, &v.Bytes
				archives, size = count(v.Archives), units.Size(v.Bytes)
			}
			list = append(list, j)
			t.row(clean(v.Name), c.stamp(v.Created), c.stamp(v.Inventory), archives, size)
			return nil
		})
	})
	if err != nil {
		return err
	}
	if c.json {
		return c.document(list)
	}
	t.print(c.output)
	return nil
}

// serviceURL is the URL of a vault by its ARN; empty where that is not of the usual form.
func serviceURL(arn string) string {
	p := strings.SplitN(arn, ":", 6) // arn:aws:glacier:REGION:ACCOUNT:vaults/NAME
	if len(p) == 6 && p[2] == "s3" { // arn:aws:s3:::BUCKET
		return "s3://" + p[5]
	}
	if len(p) != 6 || p[2] != "glacier" {
		return ""
	}
	name, ok := strings.CutPrefix(p[5], "vaults/")
	if !ok {
		return ""
	}
	return "glacier://" + p[3] + "/" + name
}
