package main

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// collector replaces the stock PropertyCollector. Retrieval is inherited. The
// update machinery is new: incremental (stock reads the whole inventory again
// for every update), with objects entering and leaving through traversals, with
// versions, and with a listener of its own per collector (in stock the default
// collectors of all sessions share one, and only one session gets updates).
type collector struct {
	simulator.PropertyCollector

	mu       sync.Mutex
	filters  []*filter
	wake     chan struct{}
	cancel   context.CancelFunc
	version  int
	pending  []types.PropertyFilterUpdate
	listener *listener
	closed   bool
}

const (
	// defaultPage is the number of objects in one answer, as vCenter limits it.
	defaultPage = 100
	// settleTime lets the updates of one action come together.
	settleTime = 2 * time.Millisecond
	// sessionCheck is how often a waiting call looks whether its session still lives.
	sessionCheck = 200 * time.Millisecond
)

func installCollector(m *simulator.Registry, g *gate) {
	registerEndpoint(m, g)
	content := lookup[*simulator.ServiceInstance](m, ref{Type: "ServiceInstance", Value: "ServiceInstance"}).Content
	c := &collector{}
	c.Self = content.PropertyCollector
	m.Put(c)
}

// listener passes changes of the inventory to its collector.
type listener struct {
	self ref
	c    *collector
}

func (l *listener) Reference() ref { return l.self }

func (l *listener) PutObject(_ *simulator.Context, o mo.Reference) {
	l.c.push(change{kind: types.ObjectUpdateKindEnter, ref: o.Reference()})
}

func (l *listener) RemoveObject(ctx *simulator.Context, r ref) {
	if r == l.c.Self { // at logout the simulator removes the collectors of the session
		l.c.close(ctx)
		return
	}
	l.c.push(change{kind: types.ObjectUpdateKindLeave, ref: r})
}

func (l *listener) UpdateObject(_ *simulator.Context, o mo.Reference, changes []types.PropertyChange) {
	c := change{kind: types.ObjectUpdateKindModify, ref: o.Reference(), paths: make([]string, len(changes))}
	for i := range changes {
		c.paths[i] = changes[i].Name
	}
	l.c.push(c)
}

// start makes a collector ready; the simulator creates per-session ones as zero values.
func (c *collector) start(ctx *simulator.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wake == nil {
		c.wake = make(chan struct{}, 1)
	}
	if c.listener == nil && !c.closed {
		c.listener = &listener{ref{Type: "PropertyListener", Value: uuid.NewString()}, c}
		ctx.Map.AddHandler(c.listener)
	}
}

func (c *collector) close(ctx *simulator.Context) {
	c.mu.Lock()
	c.closed = true
	l, cancel := c.listener, c.cancel
	c.listener = nil
	c.mu.Unlock()
	if l != nil {
		ctx.Map.RemoveHandler(l)
	}
	if cancel != nil {
		cancel()
	}
}

// push runs with the changed object's lock held: it only marks.
func (c *collector) push(ch change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	hit := false
	for _, f := range c.filters {
		hit = f.mark(ch) || hit
	}
	if hit {
		c.notify()
	}
}

func (c *collector) notify() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// CreateFilter adds a filter; a call that waits already takes it up.
func (c *collector) CreateFilter(ctx *simulator.Context, req *types.CreateFilter) soap.HasFault {
	c.start(ctx)
	f := &filter{collector: c, dirty: map[ref]map[string]bool{}}
	f.Spec, f.PartialUpdates = req.Spec, req.PartialUpdates
	f.Self.Type = "PropertyFilter"
	r := ctx.Session.Put(f).Reference()
	c.mu.Lock()
	c.filters = append(c.filters, f)
	c.Filter = append(c.Filter, r)
	c.notify()
	c.mu.Unlock()
	return &methods.CreateFilterBody{Res: &types.CreateFilterResponse{Returnval: r}}
}

func (c *collector) removeFilter(r ref) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.filters = slices.DeleteFunc(c.filters, func(f *filter) bool { return f.Self == r })
	c.Filter = withRef(c.Filter, r, false)
}

// CreatePropertyCollector makes a collector of the session.
func (c *collector) CreatePropertyCollector(ctx *simulator.Context, _ *types.CreatePropertyCollector) soap.HasFault {
	n := &collector{}
	n.Self.Type = "PropertyCollector"
	r := ctx.Session.Put(n).Reference()
	return &methods.CreatePropertyCollectorBody{Res: &types.CreatePropertyCollectorResponse{Returnval: r}}
}

// DestroyPropertyCollector ends a collector, its filters and its waiting call.
func (c *collector) DestroyPropertyCollector(ctx *simulator.Context, req *types.DestroyPropertyCollector) soap.HasFault {
	c.close(ctx)
	for _, r := range c.Filter {
		ctx.Session.Remove(ctx, r)
	}
	ctx.Session.Remove(ctx, req.This)
	return &methods.DestroyPropertyCollectorBody{Res: &types.DestroyPropertyCollectorResponse{}}
}

// CancelWaitForUpdates ends a waiting call with RequestCanceled.
func (c *collector) CancelWaitForUpdates(*types.CancelWaitForUpdates) soap.HasFault {
	c.mu.Lock()
	if c.cancel != nil {
		c.cancel()
	}
	c.mu.Unlock()
	return &methods.CancelWaitForUpdatesBody{Res: new(types.CancelWaitForUpdatesResponse)}
}

// waitLimits are the options of a wait.
func waitLimits(o *types.WaitOptions) (page int, wait time.Duration) {
	page, wait = defaultPage, -1
	if o == nil {
		return page, wait
	}
	if o.MaxWaitSeconds != nil {
		wait = time.Duration(*o.MaxWaitSeconds) * time.Second
	}
	if n := int(o.MaxObjectUpdates); n > 0 && n < page {
		page = n
	}
	return page, wait
}

// begin checks the version that the client has and makes this the collector's
// one waiting call. An empty version starts over.
func (c *collector) begin(version string, cancel context.CancelFunc) types.BaseMethodFault {
	c.mu.Lock()
	defer c.mu.Unlock()
	if version != "" && version != strconv.Itoa(c.version) {
		return &types.InvalidCollectorVersion{}
	}
	if c.cancel != nil {
		c.cancel()
	}
	c.cancel = cancel
	if version == "" {
		c.pending = nil
		for _, f := range c.filters {
			f.restart()
		}
	}
	return nil
}

// WaitForUpdatesEx returns the next updates, or nothing when the time is over.
func (c *collector) WaitForUpdatesEx(ctx *simulator.Context, req *types.WaitForUpdatesEx) soap.HasFault {
	page, wait := waitLimits(req.Options)
	return c.wait(ctx, req, page, wait)
}

func (c *collector) wait(ctx *simulator.Context, req *types.WaitForUpdatesEx, page int, wait time.Duration) soap.HasFault {
	c.start(ctx)
	waiting, cancel := context.WithCancel(context.Background())
	defer cancel()
	if wait > 0 {
		waiting, cancel = context.WithTimeout(waiting, wait)
		defer cancel()
	}
	if f := c.begin(req.Version, cancel); f != nil {
		return &methods.WaitForUpdatesExBody{Fault_: soapFault(f)}
	}
	alive := time.NewTicker(sessionCheck)
	defer alive.Stop()
	for {
		updates, opened, f := c.collect(ctx)
		if f != nil {
			return &methods.WaitForUpdatesExBody{Fault_: soapFault(f)}
		}
		if len(updates) != 0 || req.Version == "" {
			return &methods.WaitForUpdatesExBody{Res: &types.WaitForUpdatesExResponse{Returnval: c.answer(updates, page)}}
		}
		if wait == 0 {
			return &methods.WaitForUpdatesExBody{Res: &types.WaitForUpdatesExResponse{}}
		}
		select {
		case <-c.wake:
			time.Sleep(settleTime)
		case <-opened:
		case <-waiting.Done():
			if waiting.Err() == context.DeadlineExceeded {
				return &methods.WaitForUpdatesExBody{Res: &types.WaitForUpdatesExResponse{}}
			}
			return &methods.WaitForUpdatesExBody{Fault_: soapFault(&types.RequestCanceled{})}
		case <-alive.C:
			if !sessionAlive(ctx) {
				c.close(ctx)
				return &methods.WaitForUpdatesExBody{Fault_: soapFault(&types.NotAuthenticated{
					NoPermission: types.NoPermission{Object: &c.Self, PrivilegeId: "System.View"},
				})}
			}
		}
	}
}

// collect gathers what changed. While updates are withheld it leaves out the
// filters that must wait and returns a channel that ends their waiting.
func (c *collector) collect(ctx *simulator.Context) ([]types.PropertyFilterUpdate, <-chan struct{}, types.BaseMethodFault) {
	c.mu.Lock()
	updates := c.pending
	c.pending = nil
	filters := slices.Clone(c.filters)
	c.mu.Unlock()
	if updates != nil {
		return updates, nil, nil
	}
	held, opened := gateOf(ctx).state()
	held = held && !isAdmin(ctx.Session.UserAgent)
	var waitFor <-chan struct{}
	for _, f := range filters {
		if held && f.mustWait() {
			waitFor = opened
			continue
		}
		objects, flt := f.update(ctx)
		if flt != nil {
			return nil, nil, flt
		}
		if len(objects) != 0 {
			updates = append(updates, types.PropertyFilterUpdate{Filter: f.Self, ObjectSet: objects})
		}
	}
	return updates, waitFor, nil
}

// answer makes a new version of up to page objects; the rest is for the next call.
func (c *collector) answer(updates []types.PropertyFilterUpdate, page int) *types.UpdateSet {
	now, rest := splitPage(updates, page)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	c.pending = rest
	set := &types.UpdateSet{Version: strconv.Itoa(c.version), FilterSet: now}
	if rest != nil {
		set.Truncated = types.NewBool(true)
	}
	return set
}

func splitPage(all []types.PropertyFilterUpdate, page int) (now, rest []types.PropertyFilterUpdate) {
	for i, f := range all {
		if len(f.ObjectSet) > page {
			if page > 0 {
				now = append(now, types.PropertyFilterUpdate{Filter: f.Filter, ObjectSet: f.ObjectSet[:page]})
			}
			rest = append(rest, types.PropertyFilterUpdate{Filter: f.Filter, ObjectSet: f.ObjectSet[page:]})
			return now, append(rest, all[i+1:]...)
		}
		page -= len(f.ObjectSet)
		now = append(now, f)
	}
	return now, nil
}

// sessionAlive looks the session up in the list that the SessionManager reports.
func sessionAlive(ctx *simulator.Context) bool {
	if ctx.Session.IpAddress == "" {
		return true // a client within this process
	}
	sm, ok := ctx.Session.Get(ctx.Map.SessionManager().Self).(*simulator.SessionManager)
	if !ok {
		return true
	}
	return slices.ContainsFunc(sm.SessionList, func(s types.UserSession) bool { return s.Key == ctx.Session.Key })
}

// WaitForUpdates is the older method without options. Its answers are never truncated.
func (c *collector) WaitForUpdates(ctx *simulator.Context, req *types.WaitForUpdates) soap.HasFault {
	wait := &types.WaitForUpdatesEx{This: req.This, Version: req.Version}
	r := c.wait(ctx, wait, math.MaxInt, -1).(*methods.WaitForUpdatesExBody)
	body := &methods.WaitForUpdatesBody{Fault_: r.Fault_}
	if r.Res != nil {
		body.Res = &types.WaitForUpdatesResponse{Returnval: *r.Res.Returnval}
	}
	return body
}

// CheckForUpdates is the older method that does not wait. Its answers are never truncated.
func (c *collector) CheckForUpdates(ctx *simulator.Context, req *types.CheckForUpdates) soap.HasFault {
	check := &types.WaitForUpdatesEx{This: req.This, Version: req.Version}
	r := c.wait(ctx, check, math.MaxInt, 0).(*methods.WaitForUpdatesExBody)
	body := &methods.CheckForUpdatesBody{Fault_: r.Fault_}
	if r.Res != nil {
		body.Res = &types.CheckForUpdatesResponse{Returnval: r.Res.Returnval}
	}
	return body
}

// PutObject, UpdateObject and RemoveObject make the collector a RegisterObject:
// at logout the simulator removes such objects of the session from the registry.
func (c *collector) PutObject(*simulator.Context, mo.Reference) {}

// UpdateObject does nothing; see PutObject.
func (c *collector) UpdateObject(*simulator.Context, mo.Reference, []types.PropertyChange) {}

// RemoveObject does nothing; see PutObject.
func (c *collector) RemoveObject(*simulator.Context, ref) {}

// adminAgent marks the User-Agent of clients that drive the simulator: they are
// not counted, delayed or held up.
const adminAgent = "vcsim-admin"

func isAdmin(userAgent string) bool { return strings.Contains(userAgent, adminAgent) }
