package main

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// versionsRequest names the plain GET of the API versions in the counts.
const versionsRequest = "vimServiceVersions"

// adminName is the entry for the calls of clients that drive the simulator.
const adminName = "admin"

// callCounter counts SOAP calls by endpoint and method.
type callCounter struct {
	mu     sync.Mutex
	counts map[string]map[string]int
}

func (c *callCounter) add(at, method string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[string]map[string]int{}
	}
	if c.counts[at] == nil {
		c.counts[at] = map[string]int{}
	}
	c.counts[at][method]++
}

func (c *callCounter) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts = nil
}

// view returns a copy with an entry, empty or not, for every endpoint.
func (c *callCounter) view(endpoints []string) map[string]map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]map[string]int{adminName: {}}
	for _, e := range endpoints {
		out[e] = map[string]int{}
	}
	for at, methods := range c.counts {
		out[at] = maps.Clone(methods)
	}
	return out
}

// latency is the time that every SOAP call takes longer.
type latency struct{ d atomic.Int64 }

func (l *latency) set(d time.Duration) { l.d.Store(int64(d)) }

func (l *latency) wait() {
	if d := time.Duration(l.d.Load()); d > 0 {
		time.Sleep(d)
	}
}
