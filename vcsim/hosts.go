package main

import (
	"fmt"
	"net/http"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// What befalls a host: lockdown mode, disconnection from vCenter, loss of power
// and what happens to its VMs.

// hostMethods overrides methods of a host.
type hostMethods struct {
	*simulator.HostSystem
	v *vcenter
}

// EnterLockdownMode refuses logins on the host and ends the sessions there.
func (m *hostMethods) EnterLockdownMode(ctx *simulator.Context, _ *types.EnterLockdownMode) soap.HasFault {
	body := &methods.EnterLockdownModeBody{}
	if f := m.lockdown(ctx, types.HostLockdownModeLockdownNormal); f != nil {
		body.Fault_ = soapFault(f)
		return body
	}
	if e := m.v.hosts[m.Self]; e != nil {
		endSessions(e.service, e.registry)
	}
	body.Res = &types.EnterLockdownModeResponse{}
	return body
}

// ExitLockdownMode accepts logins again.
func (m *hostMethods) ExitLockdownMode(ctx *simulator.Context, _ *types.ExitLockdownMode) soap.HasFault {
	body := &methods.ExitLockdownModeBody{}
	if f := m.lockdown(ctx, types.HostLockdownModeLockdownDisabled); f != nil {
		body.Fault_ = soapFault(f)
		return body
	}
	body.Res = &types.ExitLockdownModeResponse{}
	return body
}

// lockdown sets the mode; a host that has it already says InvalidState.
func (m *hostMethods) lockdown(ctx *simulator.Context, mode types.HostLockdownMode) types.BaseMethodFault {
	if m.Config.LockdownMode == mode || m.Config.LockdownMode == "" && mode == types.HostLockdownModeLockdownDisabled {
		return &types.InvalidState{}
	}
	isOn := mode != types.HostLockdownModeLockdownDisabled
	m.Config.AdminDisabled = &isOn // an update can't carry the pointer
	ctx.Update(m.HostSystem, []types.PropertyChange{{Name: "config.lockdownMode", Val: mode}})
	m.v.lockedHosts.Store(m.Self, isOn)
	return nil
}

// isLocked tells whether a host is in lockdown mode.
func (v *vcenter) isLocked(host ref) bool {
	isOn, _ := v.lockedHosts.Load(host)
	return isOn == true
}

// DisconnectHostTask lets vCenter lose the host, which itself goes on.
func (m *hostMethods) DisconnectHostTask(ctx *simulator.Context, _ *types.DisconnectHost_Task) soap.HasFault {
	task := m.setConnection(ctx, "disconnectHost", types.HostSystemConnectionStateDisconnected)
	return &methods.DisconnectHost_TaskBody{Res: &types.DisconnectHost_TaskResponse{Returnval: task}}
}

// ReconnectHostTask lets vCenter have it again.
func (m *hostMethods) ReconnectHostTask(ctx *simulator.Context, _ *types.ReconnectHost_Task) soap.HasFault {
	task := m.setConnection(ctx, "reconnectHost", types.HostSystemConnectionStateConnected)
	return &methods.ReconnectHost_TaskBody{Res: &types.ReconnectHost_TaskResponse{Returnval: task}}
}

func (m *hostMethods) setConnection(ctx *simulator.Context, name string, state types.HostSystemConnectionState) ref {
	return runTask(ctx, m.HostSystem, name, func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		m.v.showConnection(m.HostSystem, state)
		return nil, nil
	})
}

// showConnection queues the states of a host and of its VMs, as vCenter shows them.
func (v *vcenter) showConnection(host *simulator.HostSystem, state types.HostSystemConnectionState) {
	v.lostHosts.Store(host.Self, state != types.HostSystemConnectionStateConnected)
	v.worker.later(func(ctx *simulator.Context) {
		ctx.WithLock(host, func() {
			ctx.Update(host, []types.PropertyChange{
				{Name: "runtime.connectionState", Val: state}, {Name: "summary.runtime.connectionState", Val: state},
			})
		})
		ofVMs := types.VirtualMachineConnectionStateConnected
		if state != types.HostSystemConnectionStateConnected {
			ofVMs = types.VirtualMachineConnectionStateDisconnected
		}
		for _, vm := range v.vmsOf(host.Self) {
			ctx.WithLock(vm, func() {
				ctx.Update(vm, []types.PropertyChange{
					{Name: "runtime.connectionState", Val: ofVMs}, {Name: "summary.runtime.connectionState", Val: ofVMs},
				})
			})
		}
	})
}

// notTaken tells which of some hosts were not reached with a change of the switch.
func (v *vcenter) notTaken(hosts []ref) types.BaseMethodFault {
	fault := &types.DvsOperationBulkFault{}
	for _, host := range hosts {
		if isLost, _ := v.lostHosts.Load(host); isLost == true {
			fault.HostFault = append(fault.HostFault, types.DvsOperationBulkFaultFaultOnHost{
				Host: host, Fault: types.LocalizedMethodFault{Fault: &types.HostNotConnected{}},
			})
		}
	}
	if len(fault.HostFault) == 0 {
		return nil
	}
	return fault
}

// vmsOf are the VMs that vCenter has on a host.
func (v *vcenter) vmsOf(host ref) []*simulator.VirtualMachine {
	var vms []*simulator.VirtualMachine
	for _, e := range v.registry.All("VirtualMachine") {
		vm := e.(*simulator.VirtualMachine)
		if vm.Runtime.Host != nil && *vm.Runtime.Host == host {
			vms = append(vms, vm)
		}
	}
	return vms
}

// powerHost is POST /host-power. A host without power is silent, and vCenter
// shows its VMs as they were. vSphere HA may restart them on another host. When
// the power is back, those still there are off, except the vRouter's, which
// autostart brings up.
func (s *server) powerHost(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Host      string `json:"host"`
		On        *bool  `json:"on"`
		RestartOn string `json:"restart_on"`
	}
	if !decode(w, r, &body) {
		return
	}
	e, other := s.esxi[body.Host], s.esxi[body.RestartOn]
	switch {
	case e == nil:
		refuse(w, http.StatusBadRequest, fmt.Sprintf("host %q: allowed are %v", body.Host, s.names[1:]))
		return
	case body.On == nil:
		refuse(w, http.StatusBadRequest, "on: allowed are true and false")
		return
	case body.RestartOn != "" && (other == nil || other == e || *body.On):
		refuse(w, http.StatusBadRequest, fmt.Sprintf("restart_on %q: allowed is another host of %v, with on: false", body.RestartOn, s.names[1:]))
		return
	}
	host := lookup[*simulator.HostSystem](s.v.registry, e.host)
	if *body.On {
		s.v.comeUp(host, s.vrouters)
		endSessions(e.service, e.registry)
		s.v.freezer.thaw(e.name)
	} else {
		s.v.freezer.freeze(e.name)
		s.v.showConnection(host, types.HostSystemConnectionStateNotResponding)
		s.v.worker.sync()
		if other != nil {
			s.v.restartElsewhere(host, other.host, s.vrouters)
		}
	}
	s.v.worker.sync()
	reply(w, struct{}{})
}

// comeUp shows a host that has booted: its VMs do not run, except those that start by themselves.
func (v *vcenter) comeUp(host *simulator.HostSystem, autostart map[string]bool) {
	v.showConnection(host, types.HostSystemConnectionStateConnected)
	v.worker.sync()
	for _, vm := range v.vmsOf(host.Self) {
		if poweredOn(&vm.VirtualMachine) && !autostart[vm.Name] {
			v.turn(vm, false)
		}
	}
}

// restartElsewhere does what vSphere HA does with the VMs of a dead host.
func (v *vcenter) restartElsewhere(host *simulator.HostSystem, destination ref, stay map[string]bool) {
	for _, vm := range v.vmsOf(host.Self) {
		if !poweredOn(&vm.VirtualMachine) || stay[vm.Name] {
			continue
		}
		v.turn(vm, false)
		ctx := v.newContext()
		ctx.WithLock(vm, func() {
			ctx.Update(vm, []types.PropertyChange{
				{Name: "runtime.host", Val: &destination}, {Name: "summary.runtime.host", Val: &destination},
				{Name: "runtime.connectionState", Val: types.VirtualMachineConnectionStateConnected},
			})
		})
		v.placeNow(ctx, vm.Self)
		v.turn(vm, true)
	}
}

func (v *vcenter) turn(vm *simulator.VirtualMachine, on bool) {
	var task ref
	if on {
		task = vm.PowerOnVMTask(v.newContext(), &types.PowerOnVM_Task{This: vm.Self}).(*methods.PowerOnVM_TaskBody).Res.Returnval
	} else {
		task = vm.PowerOffVMTask(v.newContext(), &types.PowerOffVM_Task{This: vm.Self}).(*methods.PowerOffVM_TaskBody).Res.Returnval
	}
	_, _ = waitTask(v.newContext(), task) // one that is in that state already says so, and is
}

// endSessions ends all sessions of an endpoint but those of drivers, and tells how many.
func endSessions(service *simulator.Service, registry *simulator.Registry) int {
	ended := 0
	for _, key := range sessionKeys(service, registry) {
		res := registry.SessionManager().TerminateSession(freshContext(service.Context), &types.TerminateSession{SessionId: []string{key}})
		if res.Fault() == nil {
			ended++
		}
	}
	return ended
}

// sessionKeys are the keys of an endpoint's sessions, without those of drivers.
func sessionKeys(service *simulator.Service, registry *simulator.Registry) []string {
	sm := freshContext(service.Context).Session.Get(registry.SessionManager().Self).(*simulator.SessionManager)
	keys := []string{}
	for _, session := range sm.SessionList {
		if !isAdmin(session.UserAgent) {
			keys = append(keys, session.Key)
		}
	}
	return keys
}
