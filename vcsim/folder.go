package main

import (
	"github.com/google/uuid"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// folderMethods overrides methods of a folder.
type folderMethods struct {
	*simulator.Folder
	v *vcenter
}

// CreateVMTask refuses names that are taken and NICs that can't be connected.
func (f *folderMethods) CreateVMTask(ctx *simulator.Context, req *types.CreateVM_Task) soap.HasFault {
	return f.v.tasks.around(f.Self, func(stock execution) execution {
		return func(t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
			if fault := f.v.nameTaken(req.Config.Name, &f.Self, ref{}); fault != nil {
				return nil, fault
			}
			if fault := f.v.prepareNics(ref{}, nil, req.Config.DeviceChange); fault != nil {
				return nil, fault
			}
			// Stock derives both from the path, so that a VM created anew would be the old one.
			for _, id := range []*string{&req.Config.Uuid, &req.Config.InstanceUuid} {
				if *id == "" {
					*id = uuid.NewString()
				}
			}
			return stock(t)
		}
	}, func() soap.HasFault { return f.Folder.CreateVMTask(ctx, req) })
}

// RegisterVMTask brings back the configuration that the VM had when it was
// unregistered: NICs, uuids, settings. The reference is a new one, as in vCenter.
func (f *folderMethods) RegisterVMTask(ctx *simulator.Context, req *types.RegisterVM_Task) soap.HasFault {
	return f.v.tasks.around(f.Self, func(stock execution) execution {
		return func(t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
			result, fault := stock(t)
			if fault != nil {
				return result, fault
			}
			f.v.mu.Lock()
			cfg := f.v.parked[req.Path]
			delete(f.v.parked, req.Path)
			f.v.mu.Unlock()
			if vm := lookup[*simulator.VirtualMachine](f.v.registry, result.(ref)); vm != nil && cfg != nil {
				ctx.WithLock(vm, func() {
					restore(vm, cfg)
					f.v.announceVM(ctx, vm)
				})
			}
			return result, nil
		}
	}, func() soap.HasFault { return f.Folder.RegisterVMTask(ctx, req) })
}

// restore gives a registered VM its old configuration; only the name is the new one.
func restore(vm *simulator.VirtualMachine, cfg *types.VirtualMachineConfigInfo) {
	cfg.Name = vm.Name
	for _, nic := range dvNics(cfg.Hardware.Device) {
		nic.port.ConnectionCookie = 0
	}
	vm.Config = cfg
	vm.Summary.Config.Uuid, vm.Summary.Config.InstanceUuid = cfg.Uuid, cfg.InstanceUuid
	vm.Summary.Config.Template, vm.Summary.Config.Annotation = cfg.Template, cfg.Annotation
	vm.Summary.Config.NumEthernetCards = 0
	for _, d := range cfg.Hardware.Device {
		if _, ok := d.(types.BaseVirtualEthernetCard); ok {
			vm.Summary.Config.NumEthernetCards++
		}
	}
}
