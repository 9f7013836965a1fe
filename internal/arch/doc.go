// Package arch holds the project's floors: which package stands where, what
// each owns, and who may import what from outside. floors.txt and outside.txt
// are the documentation; the test of this package makes them true. It has no
// code of its own and must not get any.
package arch
