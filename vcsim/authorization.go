package main

import (
	"slices"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// authorizationMethods answers questions about privileges by the permissions
// that are set; stock grants everything to everybody. Permissions are told, not
// enforced: a call that the account may not make is carried out.
type authorizationMethods struct {
	*simulator.AuthorizationManager
	service *simulator.Service
}

// SetEntityPermissions adds and changes permissions; those of other principals
// stay. Stock replaces all, and leaves out which entity they are on.
func (a *authorizationMethods) SetEntityPermissions(
	ctx *simulator.Context, req *types.SetEntityPermissions,
) soap.HasFault {
	merged := slices.Clone(req.Permission)
	for i := range merged {
		merged[i].Entity = &req.Entity
	}
	for _, p := range a.permissions(ctx, req.Entity, false) {
		if !slices.ContainsFunc(merged, func(m types.Permission) bool {
			return m.Group == p.Group && samePrincipal(m.Principal, p.Principal)
		}) {
			merged = append(merged, p)
		}
	}
	return a.AuthorizationManager.SetEntityPermissions(&types.SetEntityPermissions{
		This: a.Self, Entity: req.Entity, Permission: merged,
	})
}

// FetchUserPrivilegeOnEntities lists the privileges that a user has in effect.
func (a *authorizationMethods) FetchUserPrivilegeOnEntities(
	ctx *simulator.Context, req *types.FetchUserPrivilegeOnEntities,
) soap.HasFault {
	res := &types.FetchUserPrivilegeOnEntitiesResponse{}
	for _, e := range req.Entities {
		res.Returnval = append(res.Returnval, types.UserPrivilegeResult{
			Entity: e, Privileges: a.effective(ctx, e, req.UserName),
		})
	}
	return &methods.FetchUserPrivilegeOnEntitiesBody{Res: res}
}

// HasUserPrivilegeOnEntities tells for each privilege whether a user has it.
func (a *authorizationMethods) HasUserPrivilegeOnEntities(
	ctx *simulator.Context, req *types.HasUserPrivilegeOnEntities,
) soap.HasFault {
	return &methods.HasUserPrivilegeOnEntitiesBody{Res: &types.HasUserPrivilegeOnEntitiesResponse{
		Returnval: a.available(ctx, req.Entities, req.UserName, req.PrivId),
	}}
}

// HasPrivilegeOnEntities does so for the user of a session.
func (a *authorizationMethods) HasPrivilegeOnEntities(
	ctx *simulator.Context, req *types.HasPrivilegeOnEntities,
) soap.HasFault {
	manager := a.service.Context.Map.SessionManager().Self
	sessions := freshContext(a.service.Context).Session.Get(manager).(*simulator.SessionManager).SessionList
	for _, s := range sessions {
		if s.Key == req.SessionId {
			return &methods.HasPrivilegeOnEntitiesBody{Res: &types.HasPrivilegeOnEntitiesResponse{
				Returnval: a.available(ctx, req.Entity, s.UserName, req.PrivId),
			}}
		}
	}
	return &methods.HasPrivilegeOnEntitiesBody{Fault_: soapFault(&types.InvalidArgument{InvalidProperty: "sessionId"})}
}

func (a *authorizationMethods) available(
	ctx *simulator.Context, entities []ref, user string, privileges []string,
) []types.EntityPrivilege {
	var answer []types.EntityPrivilege
	for _, e := range entities {
		held := a.effective(ctx, e, user)
		told := types.EntityPrivilege{Entity: e}
		for _, p := range privileges {
			told.PrivAvailability = append(told.PrivAvailability, types.PrivilegeAvailability{
				PrivId: p, IsGranted: slices.Contains(held, p),
			})
		}
		answer = append(answer, told)
	}
	return answer
}

// effective is the role of the nearest permission for the user: on the entity
// itself, else a propagating one on an ancestor (vSphere Security, "Hierarchical
// Inheritance of Permissions"). Groups are not followed. Without a permission
// the endpoint's own login is an administrator, and everybody else has nothing.
func (a *authorizationMethods) effective(ctx *simulator.Context, entity ref, user string) []string {
	for _, p := range a.permissions(ctx, entity, true) {
		if !p.Group && samePrincipal(p.Principal, user) && (p.Propagate || *p.Entity == entity) {
			return a.privilegesOf(func(r types.AuthorizationRole) bool { return r.RoleId == p.RoleId })
		}
	}
	if samePrincipal(user, a.service.Listen.User.Username()) {
		return a.privilegesOf(func(r types.AuthorizationRole) bool { return r.Name == "Admin" })
	}
	return nil
}

// permissions are those on an entity and, if inherited, on its ancestors, nearest first.
func (a *authorizationMethods) permissions(ctx *simulator.Context, entity ref, inherited bool) []types.Permission {
	body := a.RetrieveEntityPermissions(ctx, &types.RetrieveEntityPermissions{Entity: entity, Inherited: inherited})
	return body.(*methods.RetrieveEntityPermissionsBody).Res.Returnval
}

func (a *authorizationMethods) privilegesOf(is func(types.AuthorizationRole) bool) []string {
	for _, r := range a.RoleList {
		if is(r) {
			return r.Privilege
		}
	}
	return nil
}

// samePrincipal compares DOMAIN\user and user@domain, in any case.
func samePrincipal(a, b string) bool { return principal(a) == principal(b) }

func principal(name string) string {
	name = strings.ToLower(name)
	if domain, user, ok := strings.Cut(name, `\`); ok {
		return user + "@" + domain
	}
	return name
}
