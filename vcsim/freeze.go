package main

import (
	"context"
	"sync"
)

// freezer makes endpoints silent: they accept connections and requests, and
// answer nothing until they thaw, as a peer does that is gone without a word. A
// request that came in the meantime is not carried out: its connection ends.
type freezer struct {
	mu     sync.Mutex
	frozen map[string]chan struct{} // by endpoint, closed at the thaw
}

func (f *freezer) freeze(at string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.frozen == nil {
		f.frozen = map[string]chan struct{}{}
	}
	if f.frozen[at] == nil {
		f.frozen[at] = make(chan struct{})
	}
}

func (f *freezer) thaw(at string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if thawed := f.frozen[at]; thawed != nil {
		close(thawed)
		delete(f.frozen, at)
	}
}

// wait returns true at once for an endpoint that answers, and false at the
// thaw, or when the client gives up, for one that is frozen.
func (f *freezer) wait(ctx context.Context, at string) bool {
	f.mu.Lock()
	thawed := f.frozen[at]
	f.mu.Unlock()
	if thawed == nil {
		return true
	}
	select {
	case <-thawed:
	case <-ctx.Done():
	}
	return false
}
