// Package loopback finds places on this machine's loopback network that no other test uses. It knows nothing of
// what listens there.
//
// A port of 127.0.0.1 that was free a moment ago may be anybody's now: every test on the machine is given ports there.
// All of 127.0.0.0/8 is this machine, though, at least on Linux: who has an address of its own has all ports of it,
// and finds its port free again when a server was killed.
package loopback

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// Host is an address of loopback, without a port, that nobody else is likely to use: one of some millions.
// Where there is only 127.0.0.1 it is that.
func Host() string {
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		return "127.0.0.1"
	}
	_ = l.Close() // it was only tried
	return host
}

// Nobody is an address and port that refuse connections: on an address that no server has, the port of a service that is long gone.
func Nobody() string { return Host() + ":9" }
