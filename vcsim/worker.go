package main

import (
	"sync"

	"github.com/vmware/govmomi/simulator"
)

// worker runs functions one at a time, in the order they were queued.
//
// The simulator calls our hooks with locks of the changed object held. What
// follows from a change but needs other locks (events, lists of other objects,
// the copies on the ESXi endpoints) is queued here and runs without any lock.
// The queue has no bound: functions on it queue further ones.
type worker struct {
	newContext func() *simulator.Context

	mu    sync.Mutex
	ready *sync.Cond
	queue []func(*simulator.Context)
}

func newWorker(newContext func() *simulator.Context) *worker {
	w := &worker{newContext: newContext}
	w.ready = sync.NewCond(&w.mu)
	go w.run()
	return w
}

func (w *worker) run() {
	for {
		w.mu.Lock()
		for len(w.queue) == 0 {
			w.ready.Wait()
		}
		next := w.queue[0]
		w.queue = w.queue[1:]
		w.mu.Unlock()
		next(w.newContext())
	}
}

// later queues f.
func (w *worker) later(f func(*simulator.Context)) {
	w.mu.Lock()
	w.queue = append(w.queue, f)
	w.mu.Unlock()
	w.ready.Signal()
}

// sync returns when everything queued so far, and what that queued in turn,
// has run.
func (w *worker) sync() {
	for range 2 {
		done := make(chan struct{})
		w.later(func(*simulator.Context) { close(done) })
		<-done
	}
}

// dueSet holds what has queued work that is still to run, each once: one action
// changes an object in many steps, and the work reads the last state anyway.
type dueSet[K comparable] struct {
	mu  sync.Mutex
	due map[K]bool
}

// enter tells whether k was not due yet.
func (d *dueSet[K]) enter(k K) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.due[k] {
		return false
	}
	if d.due == nil {
		d.due = map[K]bool{}
	}
	d.due[k] = true
	return true
}

// leave is called before the work reads its state: a change after it is due again.
func (d *dueSet[K]) leave(k K) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.due, k)
}
