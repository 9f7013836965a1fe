package app

import (
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/glaciervault"
	"github.com/firn-backup/firn/internal/coldstore/s3glacier"
	"github.com/firn-backup/firn/internal/cost"
)

// Place is where a vault's archives lie, for the price table. billed is false for vaults that cost
// nothing to read. s, which may be nil, is the vault, opened: it may know the region that its URL does not name.
func Place(url string, s coldstore.Lister) (p cost.Place, billed bool) {
	k, err := kindOf(url)
	if err != nil {
		return p, false
	}
	switch k.scheme {
	case glaciervault.Scheme:
		return cost.Place{Class: cost.Vault, Region: glaciervault.Region(url)}, true
	case s3glacier.Scheme:
		p.Class, p.Region = s3glacier.Place(url)
		if r, ok := s.(coldstore.Regioner); ok && p.Region == "" {
			p.Region = r.Region()
		}
		return p, true
	}
	return p, false
}
