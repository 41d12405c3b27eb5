package main

import (
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// execution is what a task does: a result or a fault.
type execution = func(*simulator.Task) (types.AnyType, types.BaseMethodFault)

// taskWrappers lets an override add work before and after a stock task without
// a second Task object: stock creates the task and puts it into the registry
// before it runs, and there its Execute is replaced.
type taskWrappers struct {
	mu      sync.Mutex
	pending map[ref]func(execution) execution
}

// around calls a stock method that starts a task on entity, with that task's
// execution wrapped. The simulator holds the entity's lock during the call, so
// no other task of the entity can be taken for this one.
func (w *taskWrappers) around(entity ref, wrap func(execution) execution, call func() soap.HasFault) soap.HasFault {
	w.mu.Lock()
	if w.pending == nil {
		w.pending = map[ref]func(execution) execution{}
	}
	w.pending[entity] = wrap
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.pending, entity)
		w.mu.Unlock()
	}()
	return call()
}

// apply wraps a task that is about to run, if around waits for it.
func (w *taskWrappers) apply(t *simulator.Task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if wrap, ok := w.pending[*t.Info.Entity]; ok {
		delete(w.pending, *t.Info.Entity)
		t.Execute = wrap(t.Execute)
	}
}

// runTask starts a task of our own on entity and returns its reference.
func runTask(ctx *simulator.Context, entity mo.Reference, name string, run execution) ref {
	return simulator.CreateTask(entity, name, run).Run(ctx)
}

// waitTask waits for a task that another one needs, and returns its outcome.
func waitTask(ctx *simulator.Context, r ref) (types.AnyType, types.BaseMethodFault) {
	t := ctx.Map.Get(r).(*simulator.Task)
	for {
		var info types.TaskInfo
		ctx.Map.WithLock(freshContext(ctx), t, func() { info = t.Info })
		switch info.State {
		case types.TaskInfoStateSuccess:
			return info.Result, nil
		case types.TaskInfoStateError:
			return nil, info.Error.Fault
		}
		time.Sleep(time.Millisecond)
	}
}

// taskMethodName is TaskInfo.name as vCenter reports it: the name of the
// method. Stock reports "Rename" for Rename_Task, and pyVmomi fails to decode a
// name that is no method.
func taskMethodName(name string) string {
	for _, s := range []string{
		name, name + "_Task", strings.ReplaceAll(name, "Vm", "VM") + "_Task", name + "VM_Task",
		strings.ReplaceAll(name, "Dv", "DV") + "_Task",
	} {
		if _, ok := types.TypeFunc()(s); ok && strings.HasSuffix(s, "_Task") {
			return s
		}
	}
	return ""
}
