package main

import (
	"math"
	"text/template"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// fillRequiredEnums sets the enums that vCenter always reports and stock leaves
// empty; pyVmomi can't decode an empty enum (govmomi issue #4084, fixed after
// the pinned release by pull request #4112).
func fillRequiredEnums(vm *mo.VirtualMachine) {
	if vm.Runtime.FaultToleranceState == "" {
		vm.Runtime.FaultToleranceState = types.VirtualMachineFaultToleranceStateNotConfigured
	}
	if vm.Runtime.RecordReplayState == "" {
		vm.Runtime.RecordReplayState = types.VirtualMachineRecordReplayStateInactive
	}
	vm.Summary.Runtime.FaultToleranceState = vm.Runtime.FaultToleranceState
	vm.Summary.Runtime.RecordReplayState = vm.Runtime.RecordReplayState
	vm.GuestHeartbeatStatus = types.ManagedEntityStatusGray
}

// repairEventTemplates replaces message templates that do not parse: stock
// panics when such an event is posted.
func repairEventTemplates(m *simulator.Registry) {
	info := append([]types.EventDescriptionEventDetail(nil), m.EventManager().Description.EventInfo...)
	for i := range info {
		if _, err := template.New("").Parse(info[i].FullFormat); err != nil {
			info[i].FullFormat = info[i].Key
		}
	}
	m.EventManager().Description.EventInfo = info
}

// liftCollectorLimit lets any number of event collectors exist. vCenter allows
// each client 32; stock counts those of all clients together, and goes on
// counting those of sessions that ended.
func liftCollectorLimit(m *simulator.Registry) {
	m.EventManager().MaxCollector = math.MaxInt32
}
