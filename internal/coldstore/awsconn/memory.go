package awsconn

import "sync"

// Memory remembers things by id, the newest few thousand. The zero value works.
// It is safe for concurrent use.
type Memory[T any] struct {
	mu    sync.Mutex
	m     map[string]T
	order []string
}

const memorySize = 4096

// Put remembers v by id, in the place of what was there.
func (m *Memory[T]) Put(id string, v T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m == nil {
		m.m = map[string]T{}
	}
	if _, is := m.m[id]; !is {
		m.order = append(m.order, id)
	}
	m.m[id] = v
	if len(m.order) > memorySize {
		drop := len(m.order) - memorySize/2
		for _, old := range m.order[:drop] {
			delete(m.m, old)
		}
		m.order = append([]string(nil), m.order[drop:]...)
	}
}

// Get tells what is remembered by id.
func (m *Memory[T]) Get(id string) (T, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.m[id]
	return v, ok
}

// Forget drops one; its place in the order goes with time.
func (m *Memory[T]) Forget(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.m, id)
}
