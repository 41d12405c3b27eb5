package main

import (
	"slices"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// checkerMethods adds to the VirtualMachineProvisioningChecker, which in stock
// knows CheckRelocate_Task only and allows everything.
type checkerMethods struct {
	*simulator.VmProvisioningChecker
	v *vcenter
}

// CheckMigrateTask tells whether a VM could be moved to a host, without moving it.
func (c *checkerMethods) CheckMigrateTask(ctx *simulator.Context, req *types.CheckMigrate_Task) soap.HasFault {
	body := &methods.CheckMigrate_TaskBody{}
	vm := lookup[*simulator.VirtualMachine](c.v.registry, req.Vm)
	if vm == nil {
		body.Fault_ = soapFault(&types.ManagedObjectNotFound{Obj: req.Vm})
		return body
	}
	if req.Host == nil {
		body.Fault_ = soapFault(&types.InvalidArgument{InvalidProperty: "host"})
		return body
	}
	task := runTask(ctx, vm, "checkMigrate", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		check := types.CheckResult{Vm: &vm.Self, Host: req.Host}
		m := &vmMethods{vm, c.v}
		for _, f := range []types.BaseMethodFault{m.checkDestination(*req.Host), m.checkIntranet(*req.Host)} {
			if f != nil {
				check.Error = append(check.Error, localized(f))
			}
		}
		return types.ArrayOfCheckResult{CheckResult: []types.CheckResult{check}}, nil
	})
	body.Res = &types.CheckMigrate_TaskResponse{Returnval: task}
	return body
}

// checkIntranet refuses a host on which a switch of the VM has no physical NIC,
// if the vCenter is set to mind that.
func (m *vmMethods) checkIntranet(destination ref) types.BaseMethodFault {
	if !m.v.mindsIntranets() {
		return nil
	}
	for _, nic := range dvNics(m.Config.Hardware.Device) {
		for _, e := range m.v.registry.All("DistributedVirtualSwitch") {
			s := e.(*simulator.DistributedVirtualSwitch)
			if s.Uuid == nic.port.SwitchUuid && !hasPnic(s, destination) {
				return &types.VMOnVirtualIntranet{CannotAccessNetwork: types.CannotAccessNetwork{
					CannotAccessVmDevice: types.CannotAccessVmDevice{Device: "Network adapter", Backing: s.Name},
				}}
			}
		}
	}
	return nil
}

// mindsIntranets reads vCenter's advanced setting.
func (v *vcenter) mindsIntranets() bool {
	for _, o := range v.registry.OptionManager().Setting {
		if option := o.GetOptionValue(); option.Key == intranetOption {
			text, _ := option.Value.(string)
			return strings.EqualFold(text, "true")
		}
	}
	return intranetsMattered
}

func hasPnic(s *simulator.DistributedVirtualSwitch, host ref) bool {
	for _, member := range s.Config.GetDVSConfigInfo().Host {
		if *member.Config.Host == host {
			backing, _ := member.Config.Backing.(*types.DistributedVirtualSwitchHostMemberPnicBacking)
			return backing != nil && len(backing.PnicSpec) != 0
		}
	}
	return false
}

// memberBacking is what a host gives to a switch: as the change says, else as before.
func memberBacking(
	host ref, change []types.DistributedVirtualSwitchHostMemberConfigSpec, before []types.DistributedVirtualSwitchHostMember,
) types.BaseDistributedVirtualSwitchHostMemberBacking {
	for _, spec := range change {
		if spec.Host == host && spec.Backing != nil {
			return spec.Backing
		}
	}
	for _, member := range before {
		if *member.Config.Host == host {
			return member.Config.Backing
		}
	}
	return &types.DistributedVirtualSwitchHostMemberPnicBacking{}
}

// withoutEdits leaves out changes of hosts that stay: stock refuses those, and
// memberBacking takes care of them.
func withoutEdits(req *types.ReconfigureDvs_Task) *types.ReconfigureDvs_Task {
	spec := *req.Spec.GetDVSConfigSpec()
	spec.Host = slices.DeleteFunc(slices.Clone(spec.Host), func(h types.DistributedVirtualSwitchHostMemberConfigSpec) bool {
		return types.ConfigSpecOperation(h.Operation) == types.ConfigSpecOperationEdit
	})
	return &types.ReconfigureDvs_Task{This: req.This, Spec: &spec}
}

func localized(f types.BaseMethodFault) types.LocalizedMethodFault {
	return types.LocalizedMethodFault{Fault: f}
}
