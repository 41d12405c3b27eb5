package main

import "sync"

// gate withholds property updates from waiting collectors on all endpoints, so
// that a measurement can prepare many changes and show them at once. A full
// read is no update, and neither are those of tasks: a daemon may still wait
// for a task it started.
type gate struct {
	mu     sync.Mutex
	held   bool
	opened chan struct{} // closed while not held
}

func newGate() *gate {
	g := &gate{opened: make(chan struct{})}
	close(g.opened)
	return g
}

func (g *gate) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.held {
		g.held, g.opened = true, make(chan struct{})
	}
}

func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held {
		g.held = false
		close(g.opened)
	}
}

// state tells whether updates are withheld, and returns a channel that is
// closed when they are not.
func (g *gate) state() (held bool, opened <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held, g.opened
}
