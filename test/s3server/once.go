package s3server

import (
	"context"
	"os"
	"path/filepath"
	"sync"
)

// Once starts a server when get is called first, for all tests of a package; stop ends it if it was started, and is for the
// end of all tests.
func Once(start func() (*Server, error)) (get func() (*Server, error), stop func()) {
	var mu sync.Mutex
	var s *Server
	var err error
	started := false
	get = func() (*Server, error) {
		mu.Lock()
		defer mu.Unlock()
		if !started {
			started = true
			s, err = start()
		}
		return s, err
	}
	stop = func() {
		mu.Lock()
		defer mu.Unlock()
		if !started || err != nil {
			return
		}
		s.Stop()
		if s.Root != "" {
			os.RemoveAll(filepath.Dir(s.Root)) // best effort: it is temporary
		}
	}
	return get, stop
}

// MotoOnce is Once with Moto.
func MotoOnce() (get func() (*Server, error), stop func()) {
	return Once(func() (*Server, error) { return Moto(context.Background()) })
}

// VersityOnce is Once with Versity, on a directory of its own that goes with it.
func VersityOnce() (get func() (*Server, error), stop func()) {
	return Once(func() (*Server, error) {
		dir, err := os.MkdirTemp("", "firn-versity-")
		if err != nil {
			return nil, err
		}
		s, err := Versity(context.Background(), filepath.Join(dir, "root"))
		if err != nil {
			os.RemoveAll(dir)
		}
		return s, err
	})
}
