package main

import (
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// filter is one filter of a collector: which objects are members, and what of
// them has to be read again. Its fields are guarded by the collector's mu.
type filter struct {
	mo.PropertyFilter
	collector *collector

	members map[ref]bool // nil: never collected
	stale   bool         // the traversal has to run again
	dirty   map[ref]map[string]bool
	left    []ref
}

// change is one change of the inventory.
type change struct {
	kind  types.ObjectUpdateKind
	ref   ref
	paths []string
}

// isA tells whether an object of the inventory is of a type or one derived from it.
func isA(kind string, r ref) bool {
	if kind == r.Type {
		return true
	}
	switch kind {
	case "ManagedEntity":
		switch r.Type {
		case "Task", "ContainerView", "ListView", "EventHistoryCollector", "SessionManager", "PropertyCollector":
			return false
		}
		return true
	case "Network":
		return r.Type == "DistributedVirtualPortgroup" || r.Type == "OpaqueNetwork"
	case "DistributedVirtualSwitch":
		return r.Type == "VmwareDistributedVirtualSwitch"
	case "ComputeResource":
		return r.Type == "ClusterComputeResource"
	case "ResourcePool":
		return r.Type == "VirtualApp"
	case "Folder":
		return r.Type == "StoragePod"
	}
	return false
}

// under tells whether property path a is b or inside of it.
func under(a, b string) bool {
	return a == b || strings.HasPrefix(a, b+".") || strings.HasPrefix(a, b+"[")
}

func (f *filter) restart() {
	f.members, f.stale, f.left, f.dirty = nil, false, nil, map[ref]map[string]bool{}
}

// mustWait tells whether updates of this filter can be withheld: not its first
// collection, and not those of tasks.
func (f *filter) mustWait() bool {
	f.collector.mu.Lock()
	defer f.collector.mu.Unlock()
	if f.members == nil {
		return false
	}
	for _, p := range f.Spec.PropSet {
		if p.Type != "Task" {
			return true
		}
	}
	return false
}

// mark notes a change and tells whether it matters to the filter.
func (f *filter) mark(ch change) bool {
	switch {
	case f.members == nil:
		return false
	case ch.kind == types.ObjectUpdateKindLeave:
		if !f.members[ch.ref] {
			return false
		}
		delete(f.members, ch.ref)
		delete(f.dirty, ch.ref)
		f.left = append(f.left, ch.ref)
		return true
	case ch.kind == types.ObjectUpdateKindModify:
		hit := f.members[ch.ref] && f.markPaths(ch)
		for _, o := range f.Spec.ObjectSet {
			if followed(o.SelectSet, ch) {
				f.stale, hit = true, true
			}
		}
		return hit
	}
	return false // a new object enters when a property that is followed names it
}

func (f *filter) markPaths(ch change) bool {
	hit := false
	for _, p := range f.Spec.PropSet {
		if !isA(p.Type, ch.ref) {
			continue
		}
		for _, changed := range ch.paths {
			if p.All != nil && *p.All {
				name, _, _ := strings.Cut(changed, "[")
				f.markDirty(ch.ref, name)
				hit = true
				continue
			}
			for _, path := range p.PathSet {
				if under(changed, path) || under(path, changed) {
					f.markDirty(ch.ref, path)
					hit = true
				}
			}
		}
	}
	return hit
}

func (f *filter) markDirty(r ref, path string) {
	if f.dirty[r] == nil {
		f.dirty[r] = map[string]bool{}
	}
	f.dirty[r][path] = true
}

// followed tells whether a changed property is one that a traversal follows.
func followed(set []types.BaseSelectionSpec, ch change) bool {
	for _, s := range set {
		t, ok := s.(*types.TraversalSpec)
		if !ok {
			continue
		}
		if isA(t.Type, ch.ref) {
			for _, changed := range ch.paths {
				if under(changed, t.Path) || under(t.Path, changed) {
					return true
				}
			}
		}
		if followed(t.SelectSet, ch) {
			return true
		}
	}
	return false
}

// update returns what changed since the last call: objects that entered, that
// left, and properties with other values.
func (f *filter) update(ctx *simulator.Context) ([]types.ObjectUpdate, types.BaseMethodFault) {
	mu := &f.collector.mu
	mu.Lock()
	traverse := f.members == nil || f.stale
	dirty, left := f.dirty, f.left
	f.stale, f.dirty, f.left = false, map[ref]map[string]bool{}, nil
	if f.members == nil {
		f.members = map[ref]bool{} // from here on changes are marked
	}
	mu.Unlock()

	var out []types.ObjectUpdate
	if traverse {
		entered, gone, fault := f.traverse(ctx)
		if fault != nil {
			return nil, fault
		}
		left = append(left, gone...)
		for _, r := range left {
			delete(dirty, r)
		}
		enter, fault := f.readAll(ctx, entered)
		if fault != nil {
			return nil, fault
		}
		for _, u := range enter {
			delete(dirty, u.Obj)
		}
		out = enter
	}
	for _, r := range left {
		out = append(out, types.ObjectUpdate{Kind: types.ObjectUpdateKindLeave, Obj: r})
	}
	for r, paths := range dirty {
		if u, ok := f.readChanged(ctx, r, paths); ok {
			out = append(out, u)
		}
	}
	return out, nil
}

// traverse finds the members again; it returns those that are new and those
// that are gone.
func (f *filter) traverse(ctx *simulator.Context) (entered, gone []ref, fault types.BaseMethodFault) {
	spec := types.PropertyFilterSpec{
		ObjectSet: f.Spec.ObjectSet, ReportMissingObjectsInResults: f.Spec.ReportMissingObjectsInResults,
	}
	for _, p := range f.Spec.PropSet {
		spec.PropSet = append(spec.PropSet, types.PropertySpec{Type: p.Type})
	}
	objects, fault := f.retrieve(ctx, spec)
	if fault != nil {
		return nil, nil, fault
	}
	f.collector.mu.Lock()
	defer f.collector.mu.Unlock()
	now := map[ref]bool{}
	for _, o := range objects {
		if !now[o.Obj] && !f.members[o.Obj] {
			entered = append(entered, o.Obj)
		}
		now[o.Obj] = true
	}
	for r := range f.members {
		if !now[r] {
			gone = append(gone, r)
		}
	}
	f.members = now
	return entered, gone, nil
}

func (f *filter) retrieve(ctx *simulator.Context, spec types.PropertyFilterSpec) ([]types.ObjectContent, types.BaseMethodFault) {
	c := f.collector
	body := c.PropertyCollector.RetrievePropertiesEx(ctx, &types.RetrievePropertiesEx{
		This: c.Self, SpecSet: []types.PropertyFilterSpec{spec},
	}).(*methods.RetrievePropertiesExBody)
	if body.Fault_ != nil {
		fault, _ := body.Fault_.Detail.Fault.(types.BaseMethodFault)
		return nil, fault
	}
	return body.Res.Returnval.Objects, nil
}

// readAll reads every property of objects that entered.
func (f *filter) readAll(ctx *simulator.Context, refs []ref) ([]types.ObjectUpdate, types.BaseMethodFault) {
	if len(refs) == 0 {
		return nil, nil
	}
	spec := types.PropertyFilterSpec{PropSet: f.Spec.PropSet, ReportMissingObjectsInResults: types.NewBool(true)}
	for _, r := range refs {
		spec.ObjectSet = append(spec.ObjectSet, types.ObjectSpec{Obj: r})
	}
	objects, fault := f.retrieve(ctx, spec)
	var out []types.ObjectUpdate
	for _, o := range objects {
		out = append(out, assignments(types.ObjectUpdateKindEnter, o))
	}
	return out, fault
}

// readChanged reads the changed properties of one member; a property that has
// no value any more is assigned nothing.
func (f *filter) readChanged(ctx *simulator.Context, r ref, paths map[string]bool) (types.ObjectUpdate, bool) {
	set := types.PropertySpec{Type: r.Type}
	for p := range paths {
		set.PathSet = append(set.PathSet, p)
	}
	objects, fault := f.retrieve(ctx, types.PropertyFilterSpec{
		PropSet: []types.PropertySpec{set}, ObjectSet: []types.ObjectSpec{{Obj: r}},
		ReportMissingObjectsInResults: types.NewBool(true),
	})
	if fault != nil || len(objects) == 0 {
		return types.ObjectUpdate{}, false // gone meanwhile: its leaving is marked
	}
	u := assignments(types.ObjectUpdateKindModify, objects[0])
	for _, c := range u.ChangeSet {
		delete(paths, c.Name)
	}
	for p := range paths {
		u.ChangeSet = append(u.ChangeSet, types.PropertyChange{Name: p, Op: types.PropertyChangeOpAssign})
	}
	return u, true
}

func assignments(kind types.ObjectUpdateKind, o types.ObjectContent) types.ObjectUpdate {
	u := types.ObjectUpdate{Kind: kind, Obj: o.Obj, MissingSet: o.MissingSet}
	for _, p := range o.PropSet {
		u.ChangeSet = append(u.ChangeSet, types.PropertyChange{Name: p.Name, Op: types.PropertyChangeOpAssign, Val: p.Val})
	}
	return u
}

// DestroyPropertyFilter removes the filter from its collector.
func (f *filter) DestroyPropertyFilter(ctx *simulator.Context, req *types.DestroyPropertyFilter) soap.HasFault {
	f.collector.removeFilter(req.This)
	ctx.Session.Remove(ctx, req.This)
	return &methods.DestroyPropertyFilterBody{Res: &types.DestroyPropertyFilterResponse{}}
}
