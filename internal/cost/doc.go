// Package cost estimates what cold storage costs and how long it takes,
// before anything is asked for. It owns the price table and the arithmetic of it, and
// knows no vault: everything it says follows from its arguments. Money is in
// micro-dollars and always rounded up.
package cost
