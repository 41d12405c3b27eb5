package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// vmMethods overrides methods of a virtual machine.
type vmMethods struct {
	*simulator.VirtualMachine
	v *vcenter
}

// ReconfigVMTask checks the NICs of the request before stock applies it and
// pushes the fields that stock sets without an update.
func (m *vmMethods) ReconfigVMTask(ctx *simulator.Context, req *types.ReconfigVM_Task) soap.HasFault {
	return m.v.tasks.around(m.Self, func(stock execution) execution {
		return func(t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
			spec := &req.Spec
			if spec.ChangeVersion != "" && spec.ChangeVersion != m.Config.ChangeVersion {
				return nil, &types.ConcurrentAccess{}
			}
			if spec.Name != "" {
				if f := m.v.nameTaken(spec.Name, m.Parent, m.Self); f != nil {
					return nil, f
				}
			}
			if f := m.v.prepareNics(m.Self, m.Config.Hardware.Device, spec.DeviceChange); f != nil {
				return nil, f
			}
			if result, f := stock(t); f != nil {
				return result, f
			}
			m.pushConfig(ctx, spec)
			return nil, nil
		}
	}, func() soap.HasFault { return m.VirtualMachine.ReconfigVMTask(ctx, req) })
}

// pushConfig updates the properties that stock stores silently.
func (m *vmMethods) pushConfig(ctx *simulator.Context, spec *types.VirtualMachineConfigSpec) {
	changes := []types.PropertyChange{{Name: "config.changeVersion", Val: m.Config.ChangeVersion}}
	for _, f := range []struct {
		value string
		names []string
	}{
		{spec.Name, []string{"name", "config.name", "summary.config.name"}},
		{spec.Annotation, []string{"config.annotation"}},
		{spec.Uuid, []string{"config.uuid", "summary.config.uuid"}},
		{spec.InstanceUuid, []string{"config.instanceUuid", "summary.config.instanceUuid"}},
	} {
		if f.value == "" {
			continue
		}
		for _, name := range f.names {
			changes = append(changes, types.PropertyChange{Name: name, Val: f.value})
		}
	}
	ctx.Update(m.VirtualMachine, changes)
}

// RenameTask renames the VM everywhere its name is shown.
func (m *vmMethods) RenameTask(ctx *simulator.Context, req *types.Rename_Task) soap.HasFault {
	task := runTask(ctx, m.VirtualMachine, "rename", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if f := m.v.nameTaken(req.NewName, m.Parent, m.Self); f != nil {
			return nil, f
		}
		m.pushConfig(ctx, &types.VirtualMachineConfigSpec{Name: req.NewName})
		return nil, nil
	})
	return &methods.Rename_TaskBody{Res: &types.Rename_TaskResponse{Returnval: task}}
}

// MarkAsTemplate pushes what stock only stores.
func (m *vmMethods) MarkAsTemplate(ctx *simulator.Context, req *types.MarkAsTemplate) soap.HasFault {
	res := m.VirtualMachine.MarkAsTemplate(req)
	if res.Fault() == nil {
		m.pushTemplate(ctx)
	}
	return res
}

// MarkAsVirtualMachine pushes what stock only stores.
func (m *vmMethods) MarkAsVirtualMachine(ctx *simulator.Context, req *types.MarkAsVirtualMachine) soap.HasFault {
	res := m.VirtualMachine.MarkAsVirtualMachine(req)
	if res.Fault() == nil {
		m.pushTemplate(ctx)
	}
	return res
}

func (m *vmMethods) pushTemplate(ctx *simulator.Context) {
	var pool types.AnyType // a template is in none
	if m.ResourcePool != nil {
		pool = m.ResourcePool
	}
	ctx.Update(m.VirtualMachine, []types.PropertyChange{
		{Name: "config.template", Val: m.Config.Template},
		{Name: "summary.config.template", Val: m.Summary.Config.Template},
		{Name: "resourcePool", Val: pool},
	})
}

// UnregisterVM keeps the configuration, as the .vmx file does, for RegisterVM_Task.
func (m *vmMethods) UnregisterVM(ctx *simulator.Context, req *types.UnregisterVM) soap.HasFault {
	cfg := deepCopy(m.Config)
	res := m.VirtualMachine.UnregisterVM(ctx, req)
	if res.Fault() == nil {
		m.v.mu.Lock()
		m.v.parked[cfg.Files.VmPathName] = cfg
		m.v.mu.Unlock()
	}
	return res
}

// DestroyTask refuses while the VM runs, and forgets a configuration kept for its path.
func (m *vmMethods) DestroyTask(ctx *simulator.Context, req *types.Destroy_Task) soap.HasFault {
	path := m.Config.Files.VmPathName
	return m.v.tasks.around(m.Self, func(stock execution) execution {
		return func(t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
			result, f := stock(t)
			if f == nil {
				m.v.mu.Lock()
				delete(m.v.parked, path)
				m.v.mu.Unlock()
			}
			return result, f
		}
	}, func() soap.HasFault { return m.VirtualMachine.DestroyTask(ctx, req) })
}
