package app

import (
	"github.com/firn-backup/firn/internal/coldstore/glaciervault"
	"github.com/firn-backup/firn/internal/cost"
)

// Place is where a vault's archives lie, for the price table. billed is false for vaults that cost
// nothing to read.
func Place(url string) (p cost.Place, billed bool) {
	k, err := kindOf(url)
	if err != nil || k.scheme != glaciervault.Scheme {
		return cost.Place{}, false
	}
	return cost.Place{Class: cost.Vault, Region: glaciervault.Region(url)}, true
}

// ListsLate says whether a vault tells what it has only hours later, so that what it has is known from the catalog.
func ListsLate(url string) bool {
	k, err := kindOf(url)
	return err == nil && k.scheme == glaciervault.Scheme
}
