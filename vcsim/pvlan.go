package main

import (
	"slices"

	"github.com/vmware/govmomi/vim25/types"
)

// The private VLAN map of a switch. Frames are not its business here: it is a
// list of ids that nobody else may use.

// pvlanTypes are the kinds of a secondary VLAN.
var pvlanTypes = []string{
	string(types.VmwareDistributedVirtualSwitchPvlanPortTypePromiscuous),
	string(types.VmwareDistributedVirtualSwitchPvlanPortTypeIsolated),
	string(types.VmwareDistributedVirtualSwitchPvlanPortTypeCommunity),
}

// changedPvlans returns a map after the changes of a specification, or why they can't be made.
func changedPvlans(
	have []types.VMwareDVSPvlanMapEntry, base types.BaseDVSConfigSpec,
) ([]types.VMwareDVSPvlanMapEntry, types.BaseMethodFault) {
	spec, ok := base.(*types.VMwareDVSConfigSpec)
	if !ok {
		return have, nil
	}
	after := slices.Clone(have)
	for _, change := range spec.PvlanConfigSpec {
		entry := change.PvlanEntry
		switch types.ConfigSpecOperation(change.Operation) {
		case types.ConfigSpecOperationAdd:
			if !entryIsValid(entry) {
				return nil, &types.InvalidArgument{InvalidProperty: "spec.pvlanConfigSpec.pvlanEntry"}
			}
			if slices.ContainsFunc(after, func(e types.VMwareDVSPvlanMapEntry) bool { return e.SecondaryVlanId == entry.SecondaryVlanId }) {
				return nil, &types.AlreadyExists{}
			}
			after = append(after, entry)
		case types.ConfigSpecOperationRemove:
			if !slices.Contains(after, entry) {
				return nil, &types.NotFound{}
			}
			after = slices.DeleteFunc(after, func(e types.VMwareDVSPvlanMapEntry) bool { return e == entry })
		default:
			return nil, &types.InvalidArgument{InvalidProperty: "spec.pvlanConfigSpec.operation"}
		}
	}
	return after, nil
}

// entryIsValid tells whether the ids are VLAN ids and fit the type: a
// promiscuous secondary is the primary itself.
func entryIsValid(e types.VMwareDVSPvlanMapEntry) bool {
	isID := func(id int32) bool { return id >= 1 && id <= 4094 }
	promiscuous := e.PvlanType == pvlanTypes[0]
	return slices.Contains(pvlanTypes, e.PvlanType) && isID(e.PrimaryVlanId) && isID(e.SecondaryVlanId) &&
		promiscuous == (e.PrimaryVlanId == e.SecondaryVlanId)
}
